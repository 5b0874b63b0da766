"""A small generative grammar: rules that are lines of text, and one expander.

A rule is one construction on a line of its own::

    where( is|'s) the {x}[ in <pic>]
    + tell me where <the> {x} is.
    ! {x}'s position in <pic>

``(a|b)`` takes one of the alternatives, ``[a]`` is there half of the time, ``<pic>`` is another
entry of the words, ``{x}`` is a place that the asker fills in. A full stop at the end marks a
command; all else is a question. Each ``+`` at the start makes a rule as likely again; ``!`` keeps
the whole construction from training, for the test. ``#`` starts a remark.
"""

from __future__ import annotations

import bisect
import random
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

# A text, or the alternatives of a choice.
Part: TypeAlias = "str | tuple[Sequence, ...]"
Sequence: TypeAlias = "tuple[Part, ...]"
_TOKEN = re.compile(r"[()\[\]|]|<\w+>|[^()\[\]|<]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """One construction."""

    parts: Sequence
    weight: int = 1
    test: bool = False


class Grammar:
    """Rules by name, of one language.

    Args:
        words: what ``<name>`` stands for, in the rules' own notation.
        rules: for each name the lines of its rules.

    Raises:
        ValueError: a bracket that is not closed, or a name that is not among the words.
    """

    def __init__(self, words: dict[str, str], rules: dict[str, str]) -> None:
        self._words = words
        self._read: dict[str, Sequence] = {}
        self.rules = {name: self._lines(text) for name, text in rules.items()}
        self._drawn = {
            (name, test): _Wheel([r for r in made if r.test == test])
            for name, made in self.rules.items()
            for test in (False, True)
        }

    def draw(self, rng: random.Random, name: str, test: bool = False) -> str:
        """One surface form with its places still to fill in, single spaces between words."""
        out: list[str] = []
        _write(self._drawn[name, test].draw(rng).parts, rng, out)
        return " ".join("".join(out).split())

    def texts(self) -> set[str]:
        """Every piece of text that the rules hold, places left out."""
        found: set[str] = set()
        for made in self.rules.values():
            for rule in made:
                found |= _texts(rule.parts)
        return found

    def _lines(self, text: str) -> list[Rule]:
        rules = []
        for line in text.splitlines():
            line = line.split("#")[0].strip()
            if line:
                bare = line.lstrip("+! ")
                marks = line[: len(line) - len(bare)]
                rules.append(Rule(self._parse(bare), 1 + marks.count("+"), "!" in marks))
        return rules

    def _parse(self, text: str) -> Sequence:
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != text:
            raise ValueError(f"This rule cannot be read: {text!r}. Check its < and >.")
        choice, rest = self._choice(tokens, 0, "")
        if rest != len(tokens):
            raise ValueError(f"A bracket is not closed or not opened in the rule {text!r}.")
        return choice[0] if len(choice) == 1 else (choice,)

    def _choice(self, tokens: list[str], at: int, close: str) -> tuple[tuple[Sequence, ...], int]:
        """The alternatives up to the closing sign, and the place after it."""
        made: list[Sequence] = []
        now: list[Part] = []
        while at < len(tokens) and tokens[at] not in (")", "]"):
            token = tokens[at]
            at += 1
            if token == "|":
                made.append(tuple(now))
                now = []
            elif token in ("(", "["):
                inner, at = self._choice(tokens, at, ")" if token == "(" else "]")
                now.append(inner if token == "(" else (*inner, *([()] * len(inner))))
            elif token.startswith("<"):
                now.extend(self._word(token[1:-1]))
            else:
                now.append(token)
        if close and (at == len(tokens) or tokens[at] != close):
            raise ValueError(f"A {close!r} is missing in the rule {''.join(tokens)!r}.")
        return (*made, tuple(now)), at + bool(close)

    def _word(self, name: str) -> Sequence:
        if name not in self._words:
            raise ValueError(f"<{name}> is not among the grammar's words. Add it, or correct it.")
        if name not in self._read:
            self._read[name] = self._parse(self._words[name])
        return self._read[name]


class _Wheel:
    """Draws rules by their weights."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        self._sums = list(accumulate(r.weight for r in rules))

    def draw(self, rng: random.Random) -> Rule:
        return self._rules[bisect.bisect_right(self._sums, rng.random() * self._sums[-1])]


def _write(parts: Sequence, rng: random.Random, out: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        else:
            _write(part[int(rng.random() * len(part))], rng, out)


def _texts(parts: Sequence) -> set[str]:
    found: set[str] = set()
    for part in parts:
        if isinstance(part, str):
            found.add(re.sub(r"\{\w+\}", " ", part))
        else:
            for choice in part:
                found |= _texts(choice)
    return found
