"""How the world is spoken of in each language: names, places, questions, answers."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from instructblip.scenes import UNKNOWN, Thing, phrase
from instructblip.training import english, english_follow, english_more, nouns
from instructblip.training.grammar import Grammar
from instructblip.training.surface import english_surface

NUMBERS = ("none", "one", "two", "three", "four", "five")
OUTSIDE = "I don't recognise this picture."
UNKNOWN_ANSWER = "Something I do not know."
SYNONYMS = 0.15  # share of the names in questions that are another word for the thing
FRAMES = 0.2  # share of questions with small words around them
BARE = {"hello", "who", "can", "thanks", "bye", "gibberish"}  # which never have them
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "middle", "right")
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Names: TypeAlias = "Collection[str]"
Slots = dict[str, str]  # what fills the places of a rule


class Speech(Protocol):
    """What :class:`~instructblip.training.dialogues.Dialogues` needs of a language."""

    language: str
    outside: str

    def ask(self, rng: random.Random, kind: str, test: bool, slots: Slots) -> str:
        """A whole question of a rule's name."""

    def noun(
        self, rng: random.Random, name: str, key: str = "x", colour: str = "", there: Names = ()
    ) -> Slots:
        """A name as the places ``x``, ``a_x``, ``xs`` and ``m``.

        Or another word for it, if that could not mean one of the names that are ``there``.
        """

    def group(self, rng: random.Random, group: str, key: str = "x", colour: str = "") -> Slots:
        """The same for a kind of things; ``thing`` is any."""

    def strange(self, rng: random.Random, test: bool) -> Slots:
        """A word that the world does not have."""

    def word(self, rng: random.Random, meaning: str) -> str:
        """A side, a place, a relation, a size as a question says it: a key of ``WORDS``."""

    def hue(self, rng: random.Random, colour: str) -> str:
        """A colour as a question uses it."""

    def figure(self, rng: random.Random, count: int) -> str:
        """A number as a question uses it."""

    def one(self, name: str) -> str:
        """The world's name."""

    def place(self, thing: Thing) -> str:
        """Where a thing is, by its 3×3 cell."""

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
        """Answer: all things from left to right; none at all too."""

    def shape(self, name: str) -> str:
        """Answer: which shape; "" where there is none."""

    def missing(self, name: str, colour: str = "") -> str:
        """Answer: there is no such thing. ``shape``, ``letter`` and ``digit`` are names too."""

    def compared(self, bigger: bool) -> str:
        """Answer: bigger or smaller."""

    def said(self, kind: str) -> str:
        """Answer: what a kind of question always gets."""


class English:
    """The language of the model's first training."""

    language = "en"
    outside = OUTSIDE

    grammar = Grammar(
        english.WORDS, {**english.RULES, **english_follow.RULES, **english_more.RULES}
    )

    def ask(self, rng: random.Random, kind: str, test: bool, slots: Slots) -> str:
        return english_surface(rng, *fill(self.grammar, rng, kind, test, slots), kind)

    def noun(
        self, rng: random.Random, name: str, key: str = "x", colour: str = "", there: Names = ()
    ) -> Slots:
        word, many = name, plural(name)
        if rng.random() < SYNONYMS and (others := clear(_synonyms(name), nouns.CLASHES, there)):
            word = rng.choice(others)
            many = plural(word)
        return self._slots(word, self.some(word), many, key, self.hue(rng, colour))

    def group(self, rng: random.Random, group: str, key: str = "x", colour: str = "") -> Slots:
        one, some, many = rng.choice(nouns.GROUPS[group])
        return self._slots(one, some, many, key, self.hue(rng, colour))

    def strange(self, rng: random.Random, test: bool) -> Slots:
        word = rng.choice(nouns.STRANGE_TEST if test else nouns.STRANGE)
        return self._slots(word, self.some(word), plural(word), "x", "")

    def word(self, rng: random.Random, meaning: str) -> str:
        return rng.choice(nouns.WORDS[meaning])

    def hue(self, rng: random.Random, colour: str) -> str:
        others = nouns.COLOUR_SYNONYMS.get(colour)
        return rng.choice(others) if others and rng.random() < 2 * SYNONYMS else colour

    def figure(self, rng: random.Random, count: int) -> str:
        return NUMBERS[count] if rng.random() < 0.7 else str(count)

    def _slots(self, one: str, some: str, many: str, key: str, hue: str) -> Slots:
        if hue:
            start, last = some.split(" ", 1) if " " in some else (some, "")
            one, many = f"{hue} {one}", f"{hue} {many}"
            # "something red" and "anything red"; "a red circle".
            some = f"{some} {hue}" if start.endswith("thing") and not last else self.some(one)
        return {key: one, f"a_{key}": some, f"{key}s": many}

    def one(self, name: str) -> str:
        return name

    def some(self, name: str) -> str:
        if name in _BARE:
            return name
        return ("an " if name[0].lower() in "aeiou" else "a ") + name

    def place(self, thing: Thing) -> str:
        column, row = thing.cell
        if (column, row) == (1, 1):
            return "in the middle"
        if row == 1:
            return f"on the {_COLUMNS[column]}"
        return f"at the {_ROWS[row]}" + ("" if column == 1 else f" {_COLUMNS[column]}")

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
        return sentence(listed(parts, ", ", " and ")) if parts else self.number(0)

    def shape(self, name: str) -> str:
        return sentence(self.some(name)) if name else self.missing("shape")

    def missing(self, name: str, colour: str = "") -> str:
        word = "number" if name == "digit" else name
        return f"There is no {colour} {word}.".replace("  ", " ")

    def compared(self, bigger: bool) -> str:
        return "Bigger." if bigger else "Smaller."

    def said(self, kind: str) -> str:
        return nouns.SAID[kind]


def fill(
    grammar: Grammar, rng: random.Random, kind: str, test: bool, slots: Slots
) -> tuple[str, bool]:
    """A rule with its places filled in and perhaps a frame around it; whether it is a command."""
    text = grammar.draw(rng, kind, test)
    command = text.endswith((".", "。")) and kind != "gibberish"
    text = (text[:-1] if command else text).format_map(slots)
    if kind not in BARE and rng.random() < FRAMES:
        text = grammar.draw(rng, "frame", test and rng.random() < 0.3).format(q=text)
    return text, command or kind in ("hello", "thanks", "bye")


def clear(words: Sequence[str], clashes: Mapping[str, tuple[str, ...]], there: Names) -> list[str]:
    """The words that mean none of the names that are there."""
    return [w for w in words if not set(clashes.get(w, ())).intersection(there)]


def _synonyms(name: str) -> tuple[str, ...]:
    """Other English words for a name of the world."""
    if name.startswith("number "):
        digit = name[-1]
        return f"digit {digit}", f"number {DIGIT_NAMES[int(digit)]}"
    return nouns.SYNONYMS.get(name, ())


def sentence(text: str) -> str:
    """Capital letter and full stop."""
    return text[0].upper() + text[1:] + "."


def listed(items: Sequence[str], comma: str, last: str) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else comma.join(items[:-1]) + last + items[-1]


def plural(name: str) -> str:
    """A simple plural of a noun."""
    head, _, tail = name.partition(" ")
    if head in ("letter", "number", "digit") and tail:
        return f"{head}s {tail}"
    if head in ("pair", "ear", "slice"):
        return f"{head}s {tail}"
    if name in _PLURALS:
        return _PLURALS[name]
    if name.endswith(("x", "ch", "sh", "ss")) or name in ("bus", "octopus", "cactus"):
        return name + "es"
    if name.endswith("s"):
        return name
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


_BARE = (
    "glasses",
    "scissors",
    "spectacles",
    "corn",
    "maize",
    "cattle",
    "trousers",
    "bread",
    "rice",
    "milk",
)
_PLURALS = {
    "mouse": "mice", "fish": "fish", "sheep": "sheep", "knife": "knives", "aircraft": "aircraft", "corn": "corn",
    "wolf": "wolves", "woman": "women", "man": "men", "policeman": "policemen", "leaf": "leaves", "goose": "geese",
    "shelf": "shelves", "foot": "feet", "cattle": "cattle", "maize": "maize", "deer": "deer", "scarf": "scarves",
}  # fmt: skip
