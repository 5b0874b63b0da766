"""How the world is spoken of in each language: names, places, answers, phrasings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from instructblip.scenes import UNKNOWN, Thing, phrase
from instructblip.training import chinese
from instructblip.training.phrasings import PHRASINGS, TEST_PHRASINGS

NUMBERS = ("none", "one", "two", "three", "four", "five")
OUTSIDE = "I don't recognise this picture."
UNKNOWN_ANSWER = "Something I do not know."
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "middle", "right")


class Speech(Protocol):
    """What :class:`~instructblip.training.dialogues.Dialogues` needs of a language."""

    language: str
    outside: str

    def ask(self, rng: random.Random, kind: str, test: bool) -> str:
        """A phrasing with its places to fill in."""

    def one(self, name: str) -> str:
        """The name as a question uses it."""

    def many(self, name: str) -> str:
        """Its plural."""

    def some(self, name: str) -> str:
        """With the indefinite article."""

    def place(self, thing: Thing) -> str:
        """Where a thing is, by its 3×3 cell."""

    def side(self, side: str) -> str:
        """left, right, top or bottom, as a question uses it."""

    def relation(self, how: str) -> str:
        """to the left of, to the right of, above, below."""

    def size(self, bigger: bool) -> str:
        """bigger or smaller."""

    def thing(self, thing: Thing) -> str:
        """Answer: what it is."""

    def kind(self, kind: str) -> str:
        """Answer: what kind it is."""

    def colour(self, colour: str) -> str:
        """Answer: a colour."""

    def number(self, count: int) -> str:
        """Answer: how many."""

    def where(self, thing: Thing) -> str:
        """Answer: where it is."""

    def there(self, found: bool) -> str:
        """Answer: whether something is there."""

    def true(self, right: bool) -> str:
        """Answer: whether something is so."""

    def winner(self, name: str) -> str:
        """Answer: which of two."""

    def caption(self, things: Sequence[Thing], places: bool) -> str:
        """Answer: all things from left to right."""


class English:
    """The language of the model's first training."""

    language = "en"
    outside = OUTSIDE

    def ask(self, rng: random.Random, kind: str, test: bool) -> str:
        return rng.choice((TEST_PHRASINGS if test else PHRASINGS)[kind])

    def one(self, name: str) -> str:
        return name

    def many(self, name: str) -> str:
        return plural(name)

    def some(self, name: str) -> str:
        return ("an " if name[0].lower() in "aeiou" else "a ") + name

    def place(self, thing: Thing) -> str:
        column, row = thing.cell
        if (column, row) == (1, 1):
            return "in the middle"
        if row == 1:
            return f"on the {_COLUMNS[column]}"
        return f"at the {_ROWS[row]}" + ("" if column == 1 else f" {_COLUMNS[column]}")

    def side(self, side: str) -> str:
        return f"on the {side}" if side in ("left", "right") else f"at the {side}"

    def relation(self, how: str) -> str:
        return how

    def size(self, bigger: bool) -> str:
        return "bigger" if bigger else "smaller"

    def thing(self, thing: Thing) -> str:
        return UNKNOWN_ANSWER if thing.name == UNKNOWN else sentence(phrase(thing))

    def kind(self, kind: str) -> str:
        if kind == "unknown":
            return UNKNOWN_ANSWER
        word = "number" if kind == "digit" else kind
        bare = word in ("fruit", "food", "clothing", "nature")
        return sentence(word if bare else self.some(word))

    def colour(self, colour: str) -> str:
        return sentence(colour)

    def number(self, count: int) -> str:
        return sentence(NUMBERS[count])

    def where(self, thing: Thing) -> str:
        return sentence(self.place(thing))

    def there(self, found: bool) -> str:
        return "Yes." if found else "No."

    def true(self, right: bool) -> str:
        return "Yes." if right else "No."

    def winner(self, name: str) -> str:
        return sentence(f"the {name}")

    def caption(self, things: Sequence[Thing], places: bool) -> str:
        parts = [phrase(t) + (f" {self.place(t)}" if places else "") for t in things]
        return sentence(listed(parts, ", ", " and "))


class Chinese:
    """Simple Mandarin; no measure words but 个."""

    language = "zh"
    outside = chinese.OUTSIDE

    def ask(self, rng: random.Random, kind: str, test: bool) -> str:
        return rng.choice((chinese.TEST_PHRASINGS if test else chinese.PHRASINGS)[kind])

    def one(self, name: str) -> str:
        if name.startswith("letter "):
            return f"字母{name[-1]}"
        return f"数字{name[-1]}" if name.startswith("number ") else chinese.NAMES[name]

    def many(self, name: str) -> str:
        return self.one(name)

    def some(self, name: str) -> str:
        return self.one(name)

    def place(self, thing: Thing) -> str:
        return self._spot(thing).removeprefix("在")

    def side(self, side: str) -> str:
        return chinese.SIDES[side]

    def relation(self, how: str) -> str:
        return chinese.RELATIONS[how]

    def size(self, bigger: bool) -> str:
        return "大" if bigger else "小"

    def thing(self, thing: Thing) -> str:
        return self._phrase(thing) + "。"

    def kind(self, kind: str) -> str:
        return (chinese.UNKNOWN if kind == "unknown" else chinese.KINDS[kind]) + "。"

    def colour(self, colour: str) -> str:
        return chinese.COLOURS[colour] + "。"

    def number(self, count: int) -> str:
        return chinese.NUMBERS[count] + "。"

    def where(self, thing: Thing) -> str:
        return self._spot(thing) + "。"

    def there(self, found: bool) -> str:
        return "有。" if found else "没有。"

    def true(self, right: bool) -> str:
        return "是。" if right else "不是。"

    def winner(self, name: str) -> str:
        return self.one(name) + "。"

    def caption(self, things: Sequence[Thing], places: bool) -> str:
        parts = [(self._spot(t) + "有" if places else "") + self._phrase(t) for t in things]
        return (listed(parts, "、", "、") if places else listed(parts, "、", "和")) + "。"

    def _spot(self, thing: Thing) -> str:
        column, row = thing.cell
        return chinese.PLACES[row][column]

    def _phrase(self, thing: Thing) -> str:
        if thing.name == UNKNOWN:
            return chinese.UNKNOWN
        name = self.one(thing.name)
        return f"{chinese.COLOURS[thing.colour]}的{name}" if thing.colour else name


def sentence(text: str) -> str:
    """Capital letter and full stop."""
    return text[0].upper() + text[1:] + "."


def listed(items: Sequence[str], comma: str, last: str) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else comma.join(items[:-1]) + last + items[-1]


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
