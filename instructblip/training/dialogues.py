"""Questions and answers about a scene: fixed shares of types, many phrasings, follow-ups.

The same generator serves training and evaluation; evaluation uses phrasings and seeds that
training never saw. A type that does not suit a scene is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from instructblip.scenes import (
    COLOURS,
    DIGITS,
    LETTERS,
    SHAPES,
    UNKNOWN,
    Scene,
    atlas,
)
from instructblip.training.speech import Chinese, English, Speech

# Share of each type among first questions, in per cent; training and evaluation read it here.
SHARES = {
    "what": 8, "kind": 7, "colour": 8, "side": 8, "count": 14, "caption": 8, "detail": 5,
    "where": 10, "exists": 12, "relation": 10, "compare": 10,
}  # fmt: skip
CHINESE_SHARE = 0.25  # of training's dialogues
TYPOS = 0.03  # share of English questions with one
SPEECHES: dict[str, Speech] = {"en": English(), "zh": Chinese()}
CLEARLY = 1.5  # times the area: sizes that are nearer are not compared
_FOLLOW_SHARE = 0.6


_OUTSIDE_KINDS = (
    "what", "caption", "detail", "count_all", "kind", "side", "where", "exists", "relation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its answer, and what the attention should find.

    ``first`` and ``second`` are indices of the scene's objects that the question's names (or its
    answer) mean; an empty tuple with ``named`` set means: looked for, but absent. ``holds`` is what
    the question hangs on: whether the relation is true, or the first of two is the answer.
    ``follows``: it goes on from the turn before, and the picture alone does not make it clear.
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


class Dialogues:
    """Draws dialogues; ``test`` takes the phrasings that training never uses.

    ``language``: en or zh; None mixes them, a dialogue being mostly in one.
    """

    def __init__(self, rng: random.Random, test: bool = False, language: str | None = "en") -> None:
        self._rng, self._test, self._language = rng, test, language
        self._say = SPEECHES[language or "en"]
        self._names = all_names()

    def dialogue(self, scene: Scene, turns: int, kind: str | None = None) -> list[Exchange]:
        """Up to ``turns`` exchanges; the first of ``kind`` if given (empty if it cannot be)."""
        said: list[Exchange] = []
        for _ in range(turns):
            self._choose_language(bool(said))
            fresh = (
                self._follow(scene, said[-1])
                if said and self._rng.random() < _FOLLOW_SHARE
                else None
            )
            said_now = fresh or self._first(scene, kind if not said else None)
            if said_now is None:
                break
            said.append(replace(said_now, follows=bool(fresh) and len(scene.objects) > 1))
        return said

    def outside(self, turns: int) -> list[Exchange]:
        """Any questions about a picture from outside the world: one answer."""
        asks: list[Exchange] = []
        for _ in range(turns):
            self._choose_language(bool(asks))
            kind = self._rng.choices(_OUTSIDE_KINDS, (4, 2, 2, 2, 1, 1, 2, 2, 1))[0]
            name, other = self._rng.choices(list(self._names), k=2)
            say = self._say
            words = self._ask(
                kind, side=say.side(self._rng.choice(("left", "right", "top", "bottom"))),
                x=say.one(name), y=say.one(other), xs=say.many(name), a_x=say.some(name),
                how=say.relation("above"),
            )  # fmt: skip
            asks.append(Exchange("outside", words, say.outside, (), named=False))
        return asks

    def _choose_language(self, going_on: bool) -> None:
        if self._language is None and (not going_on or self._rng.random() < 0.05):
            self._say = SPEECHES["zh" if self._rng.random() < CHINESE_SHARE else "en"]

    def _first(self, scene: Scene, kind: str | None) -> Exchange | None:
        for _ in range(12):
            chosen = kind or self._rng.choices(list(SHARES), list(SHARES.values()))[0]
            make: Callable[[Scene], Exchange | None] = getattr(self, f"_{chosen}")
            if (made := make(scene)) is not None:
                return made
        return None

    def _ask(self, kind: str, **values: str) -> str:
        text = self._say.ask(self._rng, kind, self._test).format(**values)
        draw = self._rng.random()
        if self._say.language == "zh":
            return text.rstrip("？。") if draw < 0.1 else text
        if self._rng.random() < TYPOS:
            text = _mistyped(self._rng, text)
        if draw < 0.06:
            text = text.lower()
        elif draw < 0.1:
            text = text.rstrip("?.")
        elif draw < 0.12:
            text = text.upper()
        return text

    def _unique(self, scene: Scene, coloured: bool = False) -> list[int]:
        """Known objects whose name occurs once."""
        names = [t.name for t in scene.objects]
        return [
            i for i, t in enumerate(scene.objects)
            if t.name != UNKNOWN and names.count(t.name) == 1 and (t.colour or not coloured)
        ]  # fmt: skip

    def _single(self, scene: Scene) -> int | None:
        return 0 if len(scene.objects) == 1 else None

    def _spot(self, scene: Scene) -> tuple[int, str] | None:
        """An object that is alone in a corner or in the middle, with the place's name.

        The other cells are left out: "on the left" asks for the leftmost thing.
        """
        cells = [t.cell for t in scene.objects]
        clear = [(c[0] == 1) == (c[1] == 1) for c in cells]
        alone = [i for i, c in enumerate(cells) if cells.count(c) == 1 and clear[i]]
        if not alone:
            return None
        i = self._rng.choice(alone)
        return i, self._say.place(scene.objects[i])

    def _what(self, scene: Scene) -> Exchange | None:
        if self._single(scene) is not None and self._rng.random() < 0.8:
            thing = scene.objects[0]
            return Exchange(
                "what", self._ask("what"), self._say.thing(thing), (0,), subject=thing.name
            )
        if (spot := self._spot(scene)) is None:
            return None
        thing = scene.objects[spot[0]]
        question = self._ask("what_at", place=spot[1])
        return Exchange("what", question, self._say.thing(thing), (spot[0],), subject=thing.name)

    def _kind(self, scene: Scene) -> Exchange | None:
        if self._single(scene) is not None:
            i, question = 0, self._ask("kind")
        elif (spot := self._spot(scene)) is not None:
            i, question = spot[0], self._ask("kind_at", place=spot[1])
        else:
            return None
        thing = scene.objects[i]
        return Exchange("kind", question, self._say.kind(thing.kind), (i,), subject=thing.name)

    def _colour(self, scene: Scene) -> Exchange | None:
        if not (able := self._unique(scene, coloured=True)):
            return None
        i = self._rng.choice(able)
        thing = scene.objects[i]
        question = self._ask("colour", x=self._say.one(thing.name))
        answer = self._say.colour(thing.colour or "")
        return Exchange("colour", question, answer, (i,), subject=thing.name)

    def _side(self, scene: Scene, side: str | None = None, follow: bool = False) -> Exchange | None:
        if len(scene.objects) < 2:
            return None
        side = side or self._rng.choice(("left", "right", "top", "bottom"))
        axis = 0 if side in ("left", "right") else 1
        order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[axis])
        if side in ("right", "bottom"):
            order.reverse()
        near, far = (scene.objects[i].centre[axis] for i in order[:2])
        if abs(near - far) < 0.08:
            return None
        question = self._ask("side_follow" if follow else "side", side=self._say.side(side))
        thing = scene.objects[order[0]]
        return Exchange("side", question, self._say.thing(thing), (order[0],), subject=side)

    def _count(self, scene: Scene) -> Exchange | None:
        everything = tuple(range(len(scene.objects)))
        if self._rng.random() < 0.5:
            word = self._say.number(len(everything))
            return Exchange("count", self._ask("count_all"), word, everything, named=False)
        name = self._some_name(scene, absent=0.2)
        if name is None:
            return None
        found = _called(scene, name)
        question = self._ask("count", xs=self._say.many(name))
        return Exchange("count", question, self._say.number(len(found)), found, subject=name)

    def _caption(self, scene: Scene) -> Exchange | None:
        order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[0])
        text = self._say.caption([scene.objects[i] for i in order], places=False)
        return Exchange("caption", self._ask("caption"), text, tuple(order), named=False)

    def _detail(self, scene: Scene) -> Exchange | None:
        order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[0])
        text = self._say.caption([scene.objects[i] for i in order], places=True)
        return Exchange("detail", self._ask("detail"), text, tuple(order), named=False)

    def _where(self, scene: Scene) -> Exchange | None:
        if not (able := self._unique(scene)):
            return None
        i = self._rng.choice(able)
        thing = scene.objects[i]
        question = self._ask("where", x=self._say.one(thing.name))
        return Exchange("where", question, self._say.where(thing), (i,), subject=thing.name)

    def _exists(self, scene: Scene, follow: bool = False) -> Exchange | None:
        name = self._some_name(scene, absent=0.5)
        if name is None:
            return None
        found = _called(scene, name)
        question = self._ask("exists_follow" if follow else "exists", a_x=self._say.some(name))
        return Exchange("exists", question, self._say.there(bool(found)), found, subject=name)

    def _relation(self, scene: Scene, about: int | None = None) -> Exchange | None:
        able = self._unique(scene)
        if len(able) < 2:
            return None
        i, j = self._rng.sample(able, 2)
        if about is not None:
            i = about
            j = self._rng.choice([k for k in able if k != i])
        word, axis, sign = self._rng.choice(
            (
                ("to the left of", 0, -1),
                ("to the right of", 0, 1),
                ("above", 1, -1),
                ("below", 1, 1),
            )
        )
        one, two = scene.objects[i], scene.objects[j]
        distance = (one.centre[axis] - two.centre[axis]) * sign
        if abs(distance) < 0.08:
            return None
        question = self._ask(
            "relation" if about is None else "relation_follow",
            x=self._say.one(one.name),
            y=self._say.one(two.name),
            how=self._say.relation(word),
        )
        holds = distance > 0
        answer = self._say.true(holds)
        return Exchange("relation", question, answer, (i,), (j,), subject=one.name, holds=holds)

    def _compare(self, scene: Scene) -> Exchange | None:
        able = self._unique(scene)
        if len(able) < 2:
            return None
        i, j = self._rng.sample(able, 2)
        one, two = scene.objects[i], scene.objects[j]
        if not (one.area > CLEARLY * two.area or two.area > CLEARLY * one.area):
            return None
        bigger = self._rng.random() < 0.5
        winner = one if (one.area > two.area) == bigger else two
        question = self._ask(
            "compare", x=self._say.one(one.name), y=self._say.one(two.name),
            how=self._say.size(bigger),
        )  # fmt: skip
        answer = self._say.winner(winner.name)
        return Exchange("compare", question, answer, (i,), (j,), holds=winner is one)

    def _follow(self, scene: Scene, last: Exchange) -> Exchange | None:
        """A question that can only be read with the turn before."""
        about = last.first[0] if len(last.first) == 1 else None
        if last.kind == "side":
            return self._side(scene, _other_side(last.subject), follow=True)
        if last.kind == "exists" and self._rng.random() < 0.5:
            return self._exists(scene, follow=True)
        if (
            about is None
            or scene.objects[about].name == UNKNOWN
            or last.kind in ("relation", "compare")
        ):
            return None
        thing, draw = scene.objects[about], self._rng.random()
        if len(_called(scene, thing.name)) > 1:
            return None
        if last.kind == "kind" and draw < 0.6:
            said = self._say.thing(thing)
            return Exchange("what", self._ask("what_follow"), said, (about,), subject=thing.name)
        colours = {t.colour for t in scene.objects if t.colour}
        if thing.colour and len(colours) > 1 and last.kind != "colour" and draw < 0.45:
            question = self._ask("colour_follow")
            return Exchange(
                "colour", question, self._say.colour(thing.colour), (about,), subject=thing.name
            )
        if last.kind != "where" and draw < 0.75:
            question = self._ask("where_follow")
            return Exchange("where", question, self._say.where(thing), (about,), subject=thing.name)
        return self._relation(scene, about)

    def _some_name(self, scene: Scene, absent: float) -> str | None:
        present = sorted({t.name for t in scene.objects if t.name != UNKNOWN})
        if self._rng.random() >= absent:
            return self._rng.choice(present) if present else None
        kinds = {t.kind for t in scene.objects if t.name != UNKNOWN}
        # Half of the absent names are of a kind that is there, or absence would show by kind.
        near = [n for n, k in self._names.items() if k in kinds and n not in present]
        far = [n for n in self._names if n not in present]
        return self._rng.choice(near if near and self._rng.random() < 0.5 else far)


def all_names() -> dict[str, str]:
    """Every name the model is taught, with its kind."""
    names = dict(atlas().classes)
    names.update(dict.fromkeys(SHAPES, "shape"))
    names.update({f"letter {c}": "letter" for c in LETTERS})
    names.update({f"number {c}": "digit" for c in DIGITS})
    return names


def _mistyped(rng: random.Random, text: str) -> str:
    """One letter of a longer word left out, doubled, or swapped with the next."""
    spots = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha()]
    if not spots:
        return text
    i, how = rng.choice(spots), rng.randrange(3)
    middle = ("", text[i] * 2, text[i + 1] + text[i])[how]
    return text[:i] + middle + text[i + (2 if how == 2 else 1) :]


def _called(scene: Scene, name: str) -> tuple[int, ...]:
    return tuple(i for i, t in enumerate(scene.objects) if t.name == name)


def _other_side(side: str) -> str:
    return {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]


COLOUR_NAMES = tuple(COLOURS)
