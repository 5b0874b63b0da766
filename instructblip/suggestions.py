"""Questions that fit a fresh scene, for the page to offer. Needs no torch."""

from __future__ import annotations

from instructblip.scenes import UNKNOWN, Scene
from instructblip.training.chinese_speech import Chinese
from instructblip.training.speech import English, Speech

_SPEECHES: dict[str, Speech] = {"en": English(), "zh": Chinese()}
_WORDS = {
    "en": (
        "What is in the picture?", "How many things are there?", "What colour is the {x}?",
        "Where is the {x}?", "What is on the left?",
    ),
    "zh": ("图里有什么？", "有几个东西？", "{x}是什么颜色？", "{x}在哪里？", "左边是什么？"),
}  # fmt: skip


def ask_suggestions(scene: Scene, language: str = "en", limit: int = 4) -> list[str]:
    """Up to ``limit`` questions in a language (English for one that is not known)."""
    language = language if language in _WORDS else "en"
    say = _SPEECHES[language]
    what, many, colour, where, left = _WORDS[language]
    names = [t.name for t in scene.objects]
    known = [t for t in scene.objects if t.name != UNKNOWN and names.count(t.name) == 1]
    coloured = [t for t in known if t.colour]
    asks = [what]
    asks += [where.format(x=say.one(known[0].name))] if known else []
    asks += [colour.format(x=say.one(coloured[0].name))] if coloured else []
    asks += [many]
    asks += [left] if len(scene.objects) > 1 else []
    return asks[:limit]
