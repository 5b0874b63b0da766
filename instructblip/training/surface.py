"""What typing does to a question: case, punctuation, signs of either width, slips of the finger."""

from __future__ import annotations

import random

TYPOS = 0.03  # share of English questions with one
_CLEAN = {"gibberish"}  # kinds whose text stays as it is


def english_surface(rng: random.Random, text: str, command: bool, kind: str = "") -> str:
    """An English question or command as somebody typed it."""
    if kind in _CLEAN:
        return text
    text = " ".join(text.split()).replace(" 's", "'s")
    if rng.random() < TYPOS:
        text = mistyped(rng, text)
    end = _end(rng, ".", ("!", "", "")) if command else _end(rng, "?", ("??", " ?", ".", "", ""))
    draw = rng.random()
    if draw < 0.75:
        text = text[0].upper() + text[1:]
    elif draw < 0.94:
        text = text.lower()
        end = end if rng.random() < 0.4 else ""
    elif draw < 0.96:
        text = text.upper()
    return text + end


def hanzi_surface(rng: random.Random, text: str, command: bool, kind: str = "") -> str:
    """A Chinese question or command as somebody typed it."""
    if kind in _CLEAN:
        return text
    text = text.replace(" ", "")
    draw = rng.random()
    if draw < 0.15:
        text = text.replace("，", rng.choice((",", "", " "))).replace("：", ":")
    if command:
        return text + _end(rng, "。", ("！", "", "", "."))
    return text + _end(rng, "？", ("?", "", "", "?", "？？", "。"))


def _end(rng: random.Random, usual: str, others: tuple[str, ...]) -> str:
    return usual if rng.random() < 0.75 else rng.choice(others)


def mistyped(rng: random.Random, text: str) -> str:
    """One letter of a longer word left out, doubled, or swapped with the next."""
    spots = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha()]
    if not spots:
        return text
    i, how = rng.choice(spots), rng.randrange(3)
    middle = ("", text[i] * 2, text[i + 1] + text[i])[how]
    made = text[:i] + middle + text[i + (2 if how == 2 else 1) :]
    return text if made.count("three") > text.count("three") else made  # from "there"
