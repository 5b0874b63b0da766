"""A question with its answer, and the hand that draws the words of one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from instructblip.scenes import DIGITS, LETTERS, SHAPES, UNKNOWN, Scene, Thing, atlas
from instructblip.training.speech import Slots, Speech

SIDES = ("left", "right", "top", "bottom")
APART = 0.08  # of the picture's side: what is nearer is not told apart by place


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its answer, and what the attention should find.

    ``first`` and ``second`` are indices of the scene's objects that the question's names (or its
    answer) mean; an empty tuple with ``named`` set means: looked for, but absent. ``holds`` is what
    the question hangs on: whether the relation is true, or the first of two is the answer.
    ``follows``: it goes on from the turn before, and the picture alone does not make it clear.
    ``topic``: the object that "it" means in the next turn, None where that is not clear.
    """

    kind: str
    question: str
    answer: str
    first: tuple[int, ...] = ()
    second: tuple[int, ...] = ()
    named: bool = True
    subject: str = ""
    holds: bool | None = None
    follows: bool = False
    topic: int | None = None


@dataclass(slots=True)
class Asker:
    """Words for questions: a generator, a language, and whether the test's rules are used."""

    rng: random.Random
    say: Speech
    test: bool = False
    fresh: bool = True  # nothing was asked yet
    names: dict[str, str] = field(default_factory=lambda: all_names())

    def ask(self, rule: str, *slots: Slots, **more: str) -> str:
        """A whole question of a rule."""
        values: Slots = {}
        for one in slots:
            values.update(one)
        values.update(more)
        return self.say.ask(self.rng, rule, self.test, values)

    def noun(self, scene: Scene, name: str, key: str = "x", colour: str = "") -> Slots:
        """A name of the world, by a word that means nothing else in the scene."""
        return self.say.noun(self.rng, name, key, colour, {t.name for t in scene.objects})

    def word(self, meaning: str) -> str:
        """A side, place, relation or size as a question says it."""
        return self.say.word(self.rng, meaning)

    def chance(self, share: float) -> bool:
        """True in this share of the draws."""
        return self.rng.random() < share


def all_names() -> dict[str, str]:
    """Every name the model is taught, with its kind."""
    names = dict(atlas().classes)
    names.update(dict.fromkeys(SHAPES, "shape"))
    names.update({f"letter {c}": "letter" for c in LETTERS})
    names.update({f"number {c}": "digit" for c in DIGITS})
    return names


def called(scene: Scene, name: str, colour: str | None = None) -> tuple[int, ...]:
    """Objects of a name, and of a colour if given."""
    return tuple(
        i for i, t in enumerate(scene.objects)
        if t.name == name and (colour is None or t.colour == colour)
    )  # fmt: skip


def unique(scene: Scene, coloured: bool = False) -> list[int]:
    """Known objects whose name occurs once."""
    names = [t.name for t in scene.objects]
    return [
        i for i, t in enumerate(scene.objects)
        if t.name != UNKNOWN and names.count(t.name) == 1 and (t.colour or not coloured)
    ]  # fmt: skip


def in_order(scene: Scene, chosen: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Objects from left to right."""
    indices = range(len(scene.objects)) if chosen is None else chosen
    return tuple(sorted(indices, key=lambda i: scene.objects[i].centre[0]))


def things(scene: Scene, chosen: tuple[int, ...]) -> list[Thing]:
    """The objects of these indices."""
    return [scene.objects[i] for i in chosen]


def furthest(scene: Scene, side: str) -> int | None:
    """The object that is clearly the furthest to a side."""
    axis = 0 if side in ("left", "right") else 1
    order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[axis])
    if side in ("right", "bottom"):
        order.reverse()
    if len(order) < 2:
        return None
    near, far = (scene.objects[i].centre[axis] for i in order[:2])
    return order[0] if abs(near - far) >= APART else None


def opposite(side: str) -> str:
    """left for right, and so on."""
    return {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
