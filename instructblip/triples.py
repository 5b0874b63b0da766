"""Captions scored by what they say: F1 of (class, attribute, place) triples.

The rule: a caption is a list of parts; a part names a class, with the colour of shapes, letters and
digits as its attribute, and in a detailed caption its place (3×3 cells). Both captions become
multisets of triples, order does not count; F1 = 2·|common| / (|said| + |true|). A part that is no
phrase of the world, or a refusal, is one wrong triple.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator

from instructblip.scenes import COLOURS, UNKNOWN, Thing
from instructblip.training.dialogues import SPEECHES, all_names

Triple = tuple[str, str, str]  # class, colour or "", place or ""
_SPLIT = {"en": r", | and ", "zh": r"、|和"}
_COLOURED = ("shape", "letter", "digit")


def triples(caption: str, language: str) -> Counter[Triple]:
    """What a caption says, as a multiset."""
    said: Counter[Triple] = Counter()
    for part in re.split(_SPLIT[language], _bare(caption)):
        said[_phrases(language).get(part, ("?", part, ""))] += 1
    return said


def f1(said: str, true: str, language: str) -> float:
    """F1 of the triples of two captions, 0 to 1."""
    one, two = triples(said, language), triples(true, language)
    return 2 * sum((one & two).values()) / (sum(one.values()) + sum(two.values()))


def _bare(caption: str) -> str:
    return re.sub(r"\s+", " ", caption).strip(" .。").lower()


@functools.cache
def _phrases(language: str) -> dict[str, Triple]:
    """Every part that a caption of the world can have, with what it means."""
    speech, table = SPEECHES[language], {}
    for thing in _things():
        for place in (False, True):
            part = _bare(speech.caption([thing], places=place))
            where = speech.place(thing) if place else ""
            table[part] = (thing.name, thing.colour or "", where)
    return table


def _things() -> Iterator[Thing]:
    """Each name in each of its colours in each of the nine cells."""
    names = {**all_names(), UNKNOWN: "unknown"}
    for name, kind in names.items():
        for colour in COLOURS if kind in _COLOURED else (None,):
            for cell in range(9):
                x, y = cell % 3 / 3, cell // 3 / 3
                yield Thing(name, kind, colour, (x, y, x + 1 / 3, y + 1 / 3), (1 / 3, 1 / 3))
