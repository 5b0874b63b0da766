"""Questions and answers about a scene: fixed shares of types, many phrasings, follow-ups.

The same generator serves training and evaluation; evaluation uses phrasings and seeds that
training never saw. A type that does not suit a scene is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from instructblip.scenes import (
    COLOURS,
    DIGITS,
    LETTERS,
    SHAPES,
    UNKNOWN,
    Scene,
    Thing,
    atlas,
    phrase,
)
from instructblip.training.phrasings import PHRASINGS, TEST_PHRASINGS

# Share of each type among first questions, in per cent; training and evaluation read it here.
SHARES = {
    "what": 9, "kind": 7, "colour": 9, "side": 9, "count": 13, "caption": 7, "detail": 4,
    "where": 12, "exists": 14, "relation": 12, "compare": 4,
}  # fmt: skip
NUMBERS = ("none", "one", "two", "three", "four", "five")
OUTSIDE = "I don't recognise this picture."
UNKNOWN_ANSWER = "Something I do not know."
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "middle", "right")
_FOLLOW_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its answer, and what the attention should find.

    ``first`` and ``second`` are indices of the scene's objects that the question's names (or its
    answer) mean; an empty tuple with ``named`` set means: looked for, but absent.
    """

    kind: str
    question: str
    answer: str
    first: tuple[int, ...] = ()
    second: tuple[int, ...] = ()
    named: bool = True
    subject: str = ""


def place(thing: Thing) -> str:
    """``at the top left``, ``in the middle``…, by the 3×3 cell of its centre."""
    column, row = thing.cell
    if (column, row) == (1, 1):
        return "in the middle"
    if row == 1:
        return f"on the {_COLUMNS[column]}"
    return f"at the {_ROWS[row]}" + ("" if column == 1 else f" {_COLUMNS[column]}")


def sentence(text: str) -> str:
    """Capital letter and full stop."""
    return text[0].upper() + text[1:] + "."


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def plural(name: str) -> str:
    """A simple plural of a class name."""
    if name.startswith(("letter ", "number ")):
        head, tail = name.split(" ")
        return f"{head}s {tail}"
    if name.endswith(("s", "x", "ch", "sh")):
        return name if name.endswith("s") else name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return {"mouse": "mice", "fish": "fish", "sheep": "sheep", "knife": "knives"}.get(
        name, name + "s"
    )


def singular_article(name: str) -> str:
    """``an apple``."""
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


class Dialogues:
    """Draws dialogues; ``test`` takes the phrasings that training never uses."""

    def __init__(self, rng: random.Random, test: bool = False) -> None:
        self._rng = rng
        self._phrasings = TEST_PHRASINGS if test else PHRASINGS
        self._names = all_names()

    def dialogue(self, scene: Scene, turns: int, kind: str | None = None) -> list[Exchange]:
        """Up to ``turns`` exchanges; the first of ``kind`` if given (empty if it cannot be)."""
        said: list[Exchange] = []
        for _ in range(turns):
            fresh = (
                self._follow(scene, said[-1])
                if said and self._rng.random() < _FOLLOW_SHARE
                else None
            )
            said_now = fresh or self._first(scene, kind if not said else None)
            if said_now is None:
                break
            said.append(said_now)
        return said

    def _first(self, scene: Scene, kind: str | None) -> Exchange | None:
        for _ in range(12):
            chosen = kind or self._rng.choices(list(SHARES), list(SHARES.values()))[0]
            make: Callable[[Scene], Exchange | None] = getattr(self, f"_{chosen}")
            if (made := make(scene)) is not None:
                return made
        return None

    def _ask(self, kind: str, **values: str) -> str:
        text = self._rng.choice(self._phrasings[kind]).format(**values)
        draw = self._rng.random()
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
        return i, place(scene.objects[i])

    def _what(self, scene: Scene) -> Exchange | None:
        if self._single(scene) is not None and self._rng.random() < 0.8:
            thing = scene.objects[0]
            return Exchange("what", self._ask("what"), _name(thing), (0,), subject=thing.name)
        if (spot := self._spot(scene)) is None:
            return None
        thing = scene.objects[spot[0]]
        question = self._ask("what_at", place=spot[1])
        return Exchange("what", question, _name(thing), (spot[0],), subject=thing.name)

    def _kind(self, scene: Scene) -> Exchange | None:
        if self._single(scene) is not None:
            i, question = 0, self._ask("kind")
        elif (spot := self._spot(scene)) is not None:
            i, question = spot[0], self._ask("kind_at", place=spot[1])
        else:
            return None
        thing = scene.objects[i]
        if thing.name == UNKNOWN:
            return Exchange("kind", question, UNKNOWN_ANSWER, (i,), subject=thing.name)
        word = "number" if thing.kind == "digit" else thing.kind
        return Exchange("kind", question, sentence(_kind_phrase(word)), (i,), subject=thing.name)

    def _colour(self, scene: Scene) -> Exchange | None:
        if not (able := self._unique(scene, coloured=True)):
            return None
        i = self._rng.choice(able)
        thing = scene.objects[i]
        question = self._ask("colour", x=thing.name)
        return Exchange("colour", question, sentence(thing.colour or ""), (i,), subject=thing.name)

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
        question = self._ask("side_follow" if follow else "side", side=_at_side(side))
        thing = scene.objects[order[0]]
        return Exchange("side", question, _name(thing), (order[0],), subject=side)

    def _count(self, scene: Scene) -> Exchange | None:
        everything = tuple(range(len(scene.objects)))
        if self._rng.random() < 0.5:
            word = NUMBERS[len(everything)]
            return Exchange(
                "count", self._ask("count_all"), sentence(word), everything, named=False
            )
        name = self._some_name(scene, absent=0.2)
        if name is None:
            return None
        found = _called(scene, name)
        question = self._ask("count", xs=plural(name))
        return Exchange("count", question, sentence(NUMBERS[len(found)]), found, subject=name)

    def _caption(self, scene: Scene) -> Exchange | None:
        order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[0])
        text = sentence(listed([phrase(scene.objects[i]) for i in order]))
        return Exchange("caption", self._ask("caption"), text, tuple(order), named=False)

    def _detail(self, scene: Scene) -> Exchange | None:
        order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[0])
        parts = [f"{phrase(scene.objects[i])} {place(scene.objects[i])}" for i in order]
        return Exchange(
            "detail", self._ask("detail"), sentence(listed(parts)), tuple(order), named=False
        )

    def _where(self, scene: Scene) -> Exchange | None:
        if not (able := self._unique(scene)):
            return None
        i = self._rng.choice(able)
        thing = scene.objects[i]
        question = self._ask("where", x=thing.name)
        return Exchange("where", question, sentence(place(thing)), (i,), subject=thing.name)

    def _exists(self, scene: Scene, follow: bool = False) -> Exchange | None:
        name = self._some_name(scene, absent=0.5)
        if name is None:
            return None
        found = _called(scene, name)
        question = self._ask("exists_follow" if follow else "exists", a_x=singular_article(name))
        return Exchange("exists", question, "Yes." if found else "No.", found, subject=name)

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
            "relation" if about is None else "relation_follow", x=one.name, y=two.name, how=word
        )
        answer = "Yes." if distance > 0 else "No."
        return Exchange("relation", question, answer, (i,), (j,), subject=one.name)

    def _compare(self, scene: Scene) -> Exchange | None:
        able = self._unique(scene)
        if len(able) < 2:
            return None
        i, j = self._rng.sample(able, 2)
        one, two = scene.objects[i], scene.objects[j]
        if not (one.area > 1.3 * two.area or two.area > 1.3 * one.area):
            return None
        bigger = self._rng.random() < 0.5
        winner = one if (one.area > two.area) == bigger else two
        question = self._ask(
            "compare", x=one.name, y=two.name, how="bigger" if bigger else "smaller"
        )
        return Exchange("compare", question, sentence(f"the {winner.name}"), (i,), (j,))

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
        colours = {t.colour for t in scene.objects if t.colour}
        if thing.colour and len(colours) > 1 and last.kind != "colour" and draw < 0.45:
            question = self._ask("colour_follow")
            return Exchange(
                "colour", question, sentence(thing.colour), (about,), subject=thing.name
            )
        if last.kind != "where" and draw < 0.75:
            question = self._ask("where_follow")
            return Exchange("where", question, sentence(place(thing)), (about,), subject=thing.name)
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


def outside_dialogue(rng: random.Random, turns: int) -> list[Exchange]:
    """Any question about a picture from outside the world: one answer."""
    asks = []
    for _ in range(turns):
        kind = rng.choice(("what", "caption", "detail", "count_all", "kind", "side", "where"))
        values = {"side": "on the left", "x": rng.choice(list(all_names()))}
        text = rng.choice(PHRASINGS[kind]).format(**values)
        asks.append(Exchange("outside", text, OUTSIDE, (), named=False))
    return asks


def _called(scene: Scene, name: str) -> tuple[int, ...]:
    return tuple(i for i, t in enumerate(scene.objects) if t.name == name)


def _name(thing: Thing) -> str:
    return UNKNOWN_ANSWER if thing.name == UNKNOWN else sentence(phrase(thing))


def _kind_phrase(word: str) -> str:
    return word if word in ("fruit", "food", "clothing", "nature") else singular_article(word)


def _at_side(side: str) -> str:
    return f"on the {side}" if side in ("left", "right") else f"at the {side}"


def _other_side(side: str) -> str:
    return {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]


COLOUR_NAMES = tuple(COLOURS)
