"""Long chats with a model: does it answer at turn 40 as it does at turn 1?

``python -m instructblip eval --long 100``: chats of 40 turns in each layout, half of them about one
scene, half with a new scene every turn or two; a third of the turns go on from the turn before. The
model's own answers are its history, and the context is trimmed as in any chat.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from instructblip.engine.base import Engine, PastTurn
from instructblip.figures import Score
from instructblip.scenes import UNKNOWN, Scene, compose

if TYPE_CHECKING:
    from instructblip.training.dialogues import Dialogues, Exchange

TURNS = 40
FIFTHS = 5
GROUPS = ("one scene", "fresh scenes")
FIRST_SEED = 20_000_000  # apart from training's scenes, and from those of the questions by type


@dataclass(slots=True)
class LongChats:
    """Scores by fifth of the chat: first questions and follow-ups, of one scene and of fresh ones."""

    first: dict[str, list[Score]] = field(default_factory=lambda: _table())
    follow: dict[str, list[Score]] = field(default_factory=lambda: _table())
    empty: int = 0


def _table() -> dict[str, list[Score]]:
    return {group: [Score() for _ in range(FIFTHS)] for group in GROUPS}


def long_chats(
    engine: Engine, layout: str, *, seed: int, chats: int, turns: int = TURNS, language: str = "en"
) -> LongChats:
    """Hold so many chats in a layout; every second one has fresh scenes."""
    from instructblip.evaluate import ask, register
    from instructblip.training.dialogues import Dialogues

    found = LongChats()
    for number in range(chats):
        rng = random.Random(f"{seed}-long-{language}-{number}")
        talks = Dialogues(rng, test=True, language=language)
        group = GROUPS[number % 2]
        history: list[PastTurn] = []
        shown: tuple[Scene | None, str] = (None, "")
        for scene, turn in _chat(rng, talks, group, turns):
            if scene is not shown[0]:
                shown = scene, register(engine, scene)
            fifth = len(history) * FIFTHS // turns
            table = found.follow if turn.follows else found.first
            past = ask(engine, turn, shown[1], history, table[group][fifth], language, layout)
            found.empty += not past.answer.strip()
            history.append(past)
    return found


def report_long(layout: str, found: LongChats, show_wrong: bool = False) -> str:
    """A table in Markdown: shares by fifth, and the least of the later ones over the first."""
    lines = [
        f"layout `{layout}`, empty answers: {found.empty}",
        "",
        "| turns | "
        + " | ".join(f"{n}/{FIFTHS}" for n in range(1, FIFTHS + 1))
        + " | least of first |",
        "| --- " * (FIFTHS + 2) + "|",
    ]
    for name, table in (("", found.first), (", follow-ups", found.follow)):
        for group, scores in table.items():
            shares = [score.share for score in scores]
            least = min(shares) / shares[0] if shares[0] else 0.0
            cells = " | ".join(f"{share:.1%}" for share in shares)
            lines.append(f"| {group}{name} | {cells} | {least:.1%} |")
            if show_wrong:
                lines += [f"{w}" for score in scores for w in score.wrong[:3]]
    return "\n".join(lines)


def _chat(
    rng: random.Random, talks: Dialogues, group: str, turns: int
) -> Iterator[tuple[Scene, Exchange]]:
    """As many turns, each with its scene."""
    scene, said = _scene(rng), 0
    while said < turns:
        most = turns - said if group == GROUPS[0] else rng.choice((1, 2))
        for turn in talks.dialogue(scene, most):
            yield scene, turn
            said += 1
        if group != GROUPS[0] or said < turns:
            scene = _scene(rng)


def _scene(rng: random.Random) -> Scene:
    while True:
        scene = compose(rng.randrange(FIRST_SEED, 2**31))
        if any(thing.name != UNKNOWN for thing in scene.objects):
            return scene
