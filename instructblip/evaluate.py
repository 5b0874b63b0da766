"""A model's answers on fresh scenes, by question type, through the engine itself.

``python -m instructblip eval --model embedded --seed 7 --per-type 500``: scenes composed
offline from the atlas, phrasings that training never saw, the model's own earlier answers as
history. ``type+`` are questions that go on from the turn before. Captions score by F1 of triples
(:mod:`instructblip.triples`), all else by exact match. Beside each figure: what guessing scores,
the most frequent answer's share, and a 95 % interval.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructblip.engine.base import Engine, PastTurn, Request
from instructblip.figures import (
    ABLATIONS,
    BY_TRIPLES,
    FOLLOW_UPS,
    Score,
    ablation_report,
    false_refusals,
    report,
    speed,
)
from instructblip.scenes import UNKNOWN, Scene, compose

if TYPE_CHECKING:
    from instructblip.model import InstructBlip
    from instructblip.training.dialogues import Exchange

FIRST_SEED = 10_000_000  # training's generators start elsewhere
# The first question of a dialogue that often goes on to this one; any for the others.
_LEADS = {"what+": "kind", "side+": "side", "exists+": "exists"}


def evaluate(
    engine: Engine,
    *,
    seed: int,
    per_type: int,
    style: str | None = None,
    types: Sequence[str] = (),
    language: str = "en",
    without: str = "",
) -> dict[str, Score]:
    """Ask at least ``per_type`` questions of each type, in dialogues of up to three turns.

    ``without``: ``history`` or ``picture`` is kept from the model (see also :func:`swap`).
    """
    from instructblip.training.dialogues import SHARES

    scores: dict[str, Score] = defaultdict(Score)
    for kind in types or (*SHARES, *FOLLOW_UPS):
        talks = _talks(random.Random(f"{seed}-{kind}"), kind, style, language)
        while scores[kind].asked < per_type:
            scene, talk = next(talks)
            _converse(engine, scene, talk, scores, language, without)
    return {k: scores[k] for k in (*SHARES, *FOLLOW_UPS, *scores) if k in scores}


def swap(model: InstructBlip, seed: int, language: str) -> None:
    """From now on the Q-Former reads another question than the one that was asked."""
    from instructblip.training.dialogues import Dialogues

    rng, real = random.Random(f"{seed}-swap"), model.query
    talks = Dialogues(rng, test=True, language=language)

    def query(features: Any, text: str) -> Any:
        while not (talk := talks.dialogue(compose(rng), 1)):
            pass
        return real(features, talk[0].question)

    model.query = query  # type: ignore[method-assign]


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
        with contextlib.suppress(Image.UnidentifiedImageError), Image.open(path) as file:
            pictures += [("photos", file.convert("RGB"))] * 3
    while sum(kind == "drawings" for kind, _ in pictures) < count:
        scene = compose(rng.randrange(FIRST_SEED, 2**31), atlas().test_style, count=1)
        if scene.objects[0].name == UNKNOWN:
            pictures.append(("drawings", scene.image))
    for kind, image in pictures:
        asked: dict[str, Score] = defaultdict(Score)
        _converse(engine, Scene(image, (), kind), talks.outside(1), asked)
        for score in asked.values():
            scores[kind].points += score.points
            scores[kind].exact += score.exact
            scores[kind].truth.update(score.truth)
            scores[kind].wrong += score.wrong
    return dict(scores)


def _talks(
    rng: random.Random, kind: str, style: str | None, language: str
) -> Iterator[tuple[Scene, list[Exchange]]]:
    """Dialogues that begin with a type, or hold a follow-up of it."""
    from instructblip.training.dialogues import Dialogues

    talks, follow = Dialogues(rng, test=True, language=language), kind.endswith("+")
    while True:
        scene = compose(rng.randrange(FIRST_SEED, 2**31), style)
        if all(thing.name == UNKNOWN for thing in scene.objects):
            continue  # as foreign as a photograph; see refusals()
        turns = 2 if follow else rng.choice((1, 1, 2, 3))
        talk = talks.dialogue(scene, turns, _LEADS.get(kind) if follow else kind)
        if talk and (not follow or any(_label(turn) == kind for turn in talk)):
            yield scene, talk


def _label(turn: Exchange) -> str:
    return turn.kind + ("+" if turn.follows else "")


def _converse(
    engine: Engine,
    scene: Scene,
    talk: Sequence[Exchange],
    scores: dict[str, Score],
    language: str = "en",
    without: str = "",
) -> None:
    picture = register(engine, scene, blank=without == "picture")
    history: list[PastTurn] = []
    for turn in talk:
        past = () if without == "history" else tuple(history)
        history.append(ask(engine, turn, picture, past, scores[_label(turn)], language))


def ask(
    engine: Engine,
    turn: Exchange,
    picture: str,
    past: Sequence[PastTurn],
    score: Score,
    language: str = "en",
    layout: str | None = None,
) -> PastTurn:
    """Ask one question and count the answer; gives the turn as later ones read it."""
    from instructblip.triples import f1

    request = Request(
        "e", turn.question, picture, tuple(past), engine.card.generation, layout=layout
    )
    got = ""
    for delta in engine.submit(request):
        got += delta.text
    if delta.error is not None:
        raise delta.error
    by_triples = turn.kind in BY_TRIPLES
    points = f1(got, turn.answer, language) if by_triples else None
    score.add(turn.question, turn.answer, got, points)
    spent = delta.statistics
    score.speed.append((spent.first_token, spent.new_tokens, spent.decode))
    return PastTurn("e", turn.question, picture, delta.answer_ids, got, delta.qformer_text)


def register(engine: Engine, scene: Scene, blank: bool = False) -> str:
    """Give the engine a scene's picture (or a blank one); its id."""
    from PIL import Image

    data = io.BytesIO()
    image = Image.new("RGB", scene.image.size, (128, 128, 128)) if blank else scene.image
    image.save(data, "PNG")
    picture = f"scene-{id(data)}-{random.random()}"
    engine.register_picture(picture, data.getvalue())
    return picture


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``eval``."""
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-type", type=int, default=100)
    parser.add_argument("--style", help="one drawing style only; 'emojione' was never trained on")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--types", nargs="*", default=())
    parser.add_argument("--photos", type=Path, help="folder of photographs that should be refused")
    parser.add_argument(
        "--ablate", action="store_true",
        help="also with another instruction for the Q-Former, without history, without picture",
    )  # fmt: skip
    parser.add_argument(
        "--long", type=int, metavar="CHATS",
        help="instead: so many chats of 40 turns in each layout, by fifths",
    )  # fmt: skip
    parser.add_argument(
        "--easy-vqa", type=Path, metavar="FOLDER",
        help="instead: the public easy-VQA set, the folder data/test of PyPI's package easy-vqa",
    )  # fmt: skip
    parser.add_argument("--json", help="write figures to this file")
    parser.add_argument("--show-wrong", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the tables."""
    if args.long:
        return _run_long(args)
    if args.easy_vqa:
        return _run_easy_vqa(args)
    scores = _ask(args)
    print(report(scores, args.language))
    print(speed(scores))
    print(f"refused though it is of the world: {false_refusals(scores):.1%}")
    foreign = _ask_foreign(args)
    for kind, score in foreign.items():
        print(f"refused, {kind}: {score.exact} of {score.asked} ({score.share:.1%})")
    if args.ablate:
        parts = {part: _ask(args, part) for part in ABLATIONS}
        print(ablation_report(scores, parts, args.language))
    if args.show_wrong:
        for kind, score in (scores | foreign).items():
            for question, wanted, got in score.wrong[:6]:
                print(f"{kind}: {question!r} wanted {wanted!r} got {got!r}")
    if args.json:
        figures = {
            k: {"share": s.share, "exact": s.exact, "asked": s.asked} for k, s in scores.items()
        }
        Path(args.json).write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0


def _run_long(args: argparse.Namespace) -> int:
    from instructblip.checkpoints import load
    from instructblip.engine.local import LocalEngine
    from instructblip.long_chats import long_chats, report_long

    engine = LocalEngine(load(args.model, device="cpu"))
    try:
        for layout in engine.card.layouts:
            found = long_chats(
                engine, layout, seed=args.seed, chats=args.long, language=args.language
            )
            print(report_long(layout, found, args.show_wrong), flush=True)
    finally:
        engine.close()
    return 0


def _run_easy_vqa(args: argparse.Namespace) -> int:
    from instructblip.checkpoints import load
    from instructblip.easy_vqa import ask_all, made_by_grammar, read_questions, report_easy_vqa
    from instructblip.engine.local import LocalEngine

    questions = read_questions(args.easy_vqa)
    engine = LocalEngine(load(args.model, device="cpu"))
    try:
        forms, groups = ask_all(engine, questions)
    finally:
        engine.close()
    print(report_easy_vqa(forms, groups, made_by_grammar()))
    if args.show_wrong:
        for form in forms.values():
            for question, wanted, got in form.wrong[:4]:
                print(f"{question!r} wanted {wanted!r} got {got!r}")
    return 0


def _ask(args: argparse.Namespace, without: str = "") -> dict[str, Score]:
    from instructblip.checkpoints import load
    from instructblip.engine.local import LocalEngine

    model = load(args.model, device="cpu")
    if without == "instruction":
        swap(model, args.seed, args.language)
    engine = LocalEngine(model)
    try:
        return evaluate(
            engine, seed=args.seed, per_type=args.per_type, style=args.style, types=args.types,
            language=args.language, without=without,
        )  # fmt: skip
    finally:
        engine.close()


def _ask_foreign(args: argparse.Namespace) -> dict[str, Score]:
    from instructblip.checkpoints import load
    from instructblip.engine.local import LocalEngine

    engine = LocalEngine(load(args.model, device="cpu"))
    try:
        return refusals(engine, seed=args.seed, photos=args.photos, language=args.language)
    finally:
        engine.close()


def main(argv: Sequence[str] | None = None) -> int:
    """The same as a module of its own."""
    parser = argparse.ArgumentParser(prog="python -m instructblip.evaluate", description=__doc__)
    add_flags(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
