"""The words that the grammar can make, for a tokenizer's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from instructblip.scenes import COLOURS, SHAPES, atlas
from instructblip.training import chinese, nouns
from instructblip.training.chinese_speech import Chinese
from instructblip.training.speech import (
    DIGIT_NAMES,
    NUMBERS,
    OUTSIDE,
    UNKNOWN_ANSWER,
    English,
    plural,
)


def words_of_grammar(language: str) -> set[str]:
    """Every English word (lower case), or every Chinese character, of questions and answers.

    What :data:`~instructblip.training.nouns.STRANGE` holds is left out in English, so that words
    from outside of the world, those that nobody thought of too, look alike to the Q-Former.
    """
    if language == "zh":
        table: list[object] = [chinese.OUTSIDE, chinese.UNKNOWN, chinese.NAMES, chinese.COLOURS, chinese.KINDS,
                 chinese.NUMBERS, chinese.PLACES, chinese.SYNONYMS, chinese.COLOUR_SYNONYMS, chinese.MEASURES,
                 chinese.GROUPS, chinese.WORDS, chinese.FIGURES, chinese.MISSING, chinese.SAID, chinese.STRANGE,
                 "字母数字有没有是不是更大更小一，。？、！", Chinese.grammar.texts()]  # fmt: skip
        return {
            c
            for text in _strings(table)
            for c in text
            if "\u3001" <= c <= "\uffef"
            and not "\u3040" <= c <= "\u30ff"
            and not "\uac00" <= c <= "\ud7a3"
        }
    names = {*atlas().classes, *SHAPES, *COLOURS, *NUMBERS, *DIGIT_NAMES}
    table = [OUTSIDE, UNKNOWN_ANSWER, names, {plural(n) for n in names}, "top middle bottom left right", list(nouns.SYNONYMS), nouns.SYNONYMS, list(nouns.COLOUR_SYNONYMS),
             nouns.COLOUR_SYNONYMS, nouns.GROUPS, nouns.WORDS, nouns.SAID, English.grammar.texts(),
             "a an and at in on of the there is no yes bigger smaller letter letters number numbers"]  # fmt: skip
    return {w for text in _strings(table) for w in re.findall(r"[a-z]+", text.lower())}


def _strings(table: object) -> Iterator[str]:
    """Every text of nested tables; of dictionaries the values."""
    if isinstance(table, str):
        yield table
    elif isinstance(table, dict):
        yield from _strings(list(table.values()))
    elif isinstance(table, Iterable):
        for part in table:
            yield from _strings(part)
