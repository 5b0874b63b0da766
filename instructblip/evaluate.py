"""Exact match of a model's answers on fresh scenes, by question type, through the engine itself.

``python -m instructblip.evaluate --model embedded --seed 7 --per-type 100``: scenes composed
offline from the atlas, phrasings that training never saw, the model's own earlier answers as
history. Beside each figure: the most frequent answer's share, and a 95 % interval (Wilson).
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from instructblip.engine.base import Engine, PastTurn, Request
from instructblip.scenes import Scene, compose

if TYPE_CHECKING:
    from instructblip.training.dialogues import Exchange

FIRST_SEED = 10_000_000  # training's generators start elsewhere


@dataclass(slots=True)
class Score:
    """Answers of one question type."""

    right: int = 0
    asked: int = 0
    truth: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # question, wanted, got

    def add(self, question: str, wanted: str, got: str) -> None:
        """Count one answer."""
        self.asked += 1
        self.truth[wanted] += 1
        if normal(wanted) == normal(got):
            self.right += 1
        elif len(self.wrong) < 20:
            self.wrong.append((question, wanted, got))

    @property
    def share(self) -> float:
        """Right answers of all."""
        return self.right / max(self.asked, 1)

    @property
    def most_frequent(self) -> float:
        """What always giving the commonest answer would score."""
        return max(self.truth.values(), default=0) / max(self.asked, 1)

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        n, p = max(self.asked, 1), self.share
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half


def normal(text: str) -> str:
    """Case, white space and final stop do not count."""
    return re.sub(r"\s+", " ", text).strip(" .。").lower()


def evaluate(
    engine: Engine,
    *,
    seed: int,
    per_type: int,
    style: str | None = None,
    types: Sequence[str] = (),
    language: str = "en",
) -> dict[str, Score]:
    """Ask ``per_type`` first questions of each type, with up to two follow-ups after them.

    Follow-ups are scored under ``<type>+``.
    """
    from instructblip.training.dialogues import SHARES

    scores: dict[str, Score] = defaultdict(Score)
    for kind in types or SHARES:
        talks = _talks(random.Random(f"{seed}-{kind}"), kind, style, language)
        for scene, talk in islice(talks, per_type):
            _converse(engine, scene, talk, scores)
    return dict(scores)


def _talks(
    rng: random.Random, kind: str, style: str | None, language: str
) -> Iterator[tuple[Scene, list[Exchange]]]:
    from instructblip.training.dialogues import Dialogues

    talks = Dialogues(rng, test=True, language=language)
    while True:
        scene = compose(rng.randrange(FIRST_SEED, 2**31), style)
        talk = talks.dialogue(scene, rng.choice((1, 1, 2, 3)), kind)
        if talk:
            yield scene, talk


def _converse(
    engine: Engine, scene: Scene, talk: Sequence[Exchange], scores: dict[str, Score]
) -> None:
    data = io.BytesIO()
    scene.image.save(data, "PNG")
    picture = f"scene-{id(data)}-{random.random()}"
    engine.register_picture(picture, data.getvalue())
    history: list[PastTurn] = []
    for n, turn in enumerate(talk):
        request = Request("e", turn.question, picture, tuple(history), engine.card.generation)
        got = ""
        for delta in engine.submit(request):
            got += delta.text
        if delta.error is not None:
            raise delta.error
        scores[turn.kind if n == 0 else turn.kind + "+"].add(turn.question, turn.answer, got)
        history.append(
            PastTurn("e", turn.question, picture, delta.answer_ids, got, delta.qformer_text)
        )


def report(scores: dict[str, Score]) -> str:
    """A table in Markdown, with the mean over the first questions' types."""
    lines = [
        "| type | right | of | most frequent answer | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, score in scores.items():
        low, high = score.interval()
        lines.append(
            f"| {kind} | {score.share:.1%} | {score.asked} | {score.most_frequent:.1%} | {low:.1%}–{high:.1%} |"
        )
    lines.append(f"| **mean over types** | **{mean(scores):.1%}** | | | |")
    return "\n".join(lines)


def mean(scores: dict[str, Score]) -> float:
    """Mean over all types, follow-ups included, each type counting the same."""
    return sum(s.share for s in scores.values()) / max(len(scores), 1)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m instructblip.evaluate", description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-type", type=int, default=100)
    parser.add_argument("--style", help="one drawing style only; 'emojione' was never trained on")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--types", nargs="*", default=())
    parser.add_argument("--json", help="write figures to this file")
    parser.add_argument("--show-wrong", action="store_true")
    args = parser.parse_args(argv)

    from instructblip.checkpoints import load
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(load(args.model, device="cpu"))
    try:
        scores = evaluate(
            engine, seed=args.seed, per_type=args.per_type, style=args.style, types=args.types,
            language=args.language,
        )  # fmt: skip
    finally:
        engine.close()
    print(report(scores))
    if args.show_wrong:
        for kind, score in scores.items():
            for question, wanted, got in score.wrong[:6]:
                print(f"{kind}: {question!r} wanted {wanted!r} got {got!r}")
    if args.json:
        figures: dict[str, Any] = {
            k: {"right": s.right, "asked": s.asked} for k, s in scores.items()
        }
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
