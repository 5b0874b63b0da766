"""Exact match of a model's answers on fresh scenes, by question type, through the engine itself.

``python -m instructblip eval --model embedded --seed 7 --per-type 100``: scenes composed
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
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructblip.engine.base import Engine, PastTurn, Request
from instructblip.scenes import UNKNOWN, Scene, compose

if TYPE_CHECKING:
    from instructblip.training.dialogues import Exchange

REFUSED = ("i don't recognise this picture", "我不认识这张图片")
FIRST_SEED = 10_000_000  # training's generators start elsewhere


@dataclass(slots=True)
class Score:
    """Answers of one question type."""

    right: int = 0
    asked: int = 0
    truth: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # question, wanted, got
    speed: list[tuple[float, int, float]] = field(default_factory=list)  # s, tokens, s
    refused: int = 0  # wrongly: "I don't recognise this picture" about a scene of the world

    def add(self, question: str, wanted: str, got: str) -> None:
        """Count one answer."""
        self.asked += 1
        self.truth[wanted] += 1
        if normal(wanted) == normal(got):
            self.right += 1
            return
        self.refused += normal(got) in REFUSED
        if len(self.wrong) < 20:
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


def refusals(
    engine: Engine, *, seed: int, photos: Path | None, language: str = "en", count: int = 60
) -> dict[str, Score]:
    """Pictures from outside the world: how often the model says that it does not recognise them.

    ``photos``: every picture of a folder, three questions each. ``drawings``: icons of unknown
    things in a style never trained on. ``made``: noise, pages, windows, charts and the like.
    """
    from PIL import Image

    from instructblip.scenes import atlas
    from instructblip.training.dialogues import Dialogues
    from instructblip.training.foreign import foreign

    rng = random.Random(f"{seed}-foreign")
    talks, scores = Dialogues(rng, test=True, language=language), defaultdict[str, Score](Score)
    pictures: list[tuple[str, Image.Image]] = [("made", foreign(rng)) for _ in range(count)]
    for path in sorted(photos.iterdir()) if photos else ():
        with Image.open(path) as file:
            pictures += [("photos", file.convert("RGB"))] * 3
    while sum(kind == "drawings" for kind, _ in pictures) < count:
        scene = compose(rng.randrange(FIRST_SEED, 2**31), atlas().test_style, count=1)
        if scene.objects[0].name == UNKNOWN:
            pictures.append(("drawings", scene.image))
    for kind, image in pictures:
        asked: dict[str, Score] = defaultdict(Score)
        _converse(engine, Scene(image, (), kind), talks.outside(1), asked)
        for score in asked.values():
            scores[kind].asked += score.asked
            scores[kind].right += score.right
            scores[kind].truth.update(score.truth)
            scores[kind].wrong += score.wrong
    return dict(scores)


def false_refusals(scores: dict[str, Score]) -> float:
    """Share of questions about scenes of the world that were refused."""
    asked = sum(s.asked for s in scores.values())
    return sum(s.refused for s in scores.values()) / max(asked, 1)


def _talks(
    rng: random.Random, kind: str, style: str | None, language: str
) -> Iterator[tuple[Scene, list[Exchange]]]:
    from instructblip.training.dialogues import Dialogues

    talks = Dialogues(rng, test=True, language=language)
    while True:
        scene = compose(rng.randrange(FIRST_SEED, 2**31), style)
        if all(thing.name == UNKNOWN for thing in scene.objects):
            continue  # as foreign as a photograph; see refusals()
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
        score = scores[turn.kind if n == 0 else turn.kind + "+"]
        score.add(turn.question, turn.answer, got)
        spent = delta.statistics
        score.speed.append((spent.first_token, spent.new_tokens, spent.decode))
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


def speed(scores: dict[str, Score]) -> str:
    """Medians through the engine; the rate over answers of 12 tokens and more."""
    laps = [lap for score in scores.values() for lap in score.speed]
    first = statistics.median(lap[0] for lap in laps) * 1000
    long = [(tokens - 1) / spent for _, tokens, spent in laps if tokens >= 12 and spent > 0]
    rate = f"{statistics.median(long):.0f} tokens/s" if long else "no long answers"
    return f"median first token {first:.1f} ms of {len(laps)} answers; {rate} of {len(long)}"


def mean(scores: dict[str, Score]) -> float:
    """Mean over all types, follow-ups included, each type counting the same."""
    return sum(s.share for s in scores.values()) / max(len(scores), 1)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``eval``."""
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-type", type=int, default=100)
    parser.add_argument("--style", help="one drawing style only; 'emojione' was never trained on")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--types", nargs="*", default=())
    parser.add_argument("--photos", type=Path, help="folder of photographs that should be refused")
    parser.add_argument("--json", help="write figures to this file")
    parser.add_argument("--show-wrong", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the tables."""
    from instructblip.checkpoints import load
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(load(args.model, device="cpu"))
    try:
        scores = evaluate(
            engine, seed=args.seed, per_type=args.per_type, style=args.style, types=args.types,
            language=args.language,
        )  # fmt: skip
        foreign = refusals(engine, seed=args.seed, photos=args.photos, language=args.language)
    finally:
        engine.close()
    print(report(scores))
    print(speed(scores))
    print(f"refused though it is of the world: {false_refusals(scores):.1%}")
    for kind, score in foreign.items():
        print(f"refused, {kind}: {score.right} of {score.asked} ({score.share:.1%})")
    if args.show_wrong:
        for kind, score in (scores | foreign).items():
            for question, wanted, got in score.wrong[:6]:
                print(f"{kind}: {question!r} wanted {wanted!r} got {got!r}")
    if args.json:
        figures: dict[str, Any] = {
            k: {"right": s.right, "asked": s.asked} for k, s in scores.items()
        }
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The same as a module of its own."""
    parser = argparse.ArgumentParser(prog="python -m instructblip.evaluate", description=__doc__)
    add_flags(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
