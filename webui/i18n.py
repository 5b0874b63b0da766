"""English and Chinese: one flat file of messages per language, for the page and for errors.

Labels of Gradio components are translated in the browser (``ui_`` keys, by ``gr.I18n``); all other
text is made on the server, in the language that the page has written into the ``lang`` cookie.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from instructblip.errors import InstructBlipError

LANGUAGES = ("en", "zh")
COOKIE = "lang"
_FOLDER = Path(__file__).parent / "locales"


@cache
def messages(language: str) -> Mapping[str, str]:
    """All messages of a language, key → text with ``{placeholders}``."""
    table: dict[str, str] = json.loads((_FOLDER / f"{language}.json").read_text("utf-8"))
    return table


def text(language: str, key: str, /, **values: object) -> str:
    """One message with its placeholders filled; a value that is missing stays visible as ``{name}``."""
    table = messages(language)
    return _Lenient().vformat(table.get(key) or messages("en").get(key, key), (), values)


def error_text(language: str, error: BaseException) -> str:
    """What happened and what to do, for any exception."""
    if isinstance(error, InstructBlipError):
        return coded_text(language, error.code, error.values, str(error))
    return text(language, "error_unexpected", kind=type(error).__name__)


def coded_text(language: str, code: str, values: Mapping[str, Any], fallback: str) -> str:
    """The message of an error code; its English sentence where the code has no translation."""
    key = f"error_{code}"
    if key not in messages(language):
        return fallback
    return text(language, key, **values)


def language_of(request: Any) -> str:
    """The page's language: its cookie, else what the browser prefers, else English."""
    chosen = getattr(request, "cookies", {}).get(COOKIE, "") if request is not None else ""
    if chosen in LANGUAGES:
        return str(chosen)
    headers = getattr(request, "headers", {}) if request is not None else {}
    accepted = str(headers.get("accept-language", ""))
    for item in accepted.split(","):
        tag = item.split(";")[0].strip().lower().split("-")[0]
        if tag in LANGUAGES:
            return tag
    return "en"


def place_text(language: str, place: int, seconds: float | None = None) -> str:
    """The place in the waiting line in words, and about how long it takes: ``3rd in line, about 12 s``."""
    shown = str(place)
    if language == "en":
        teens = 10 <= place % 100 <= 20
        shown += "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    if seconds is None:
        return text(language, "waiting_place", place=shown)
    minutes = seconds >= 90
    count = round(seconds / 60) if minutes else max(math.ceil(seconds), 1)
    time = text(language, "minutes" if minutes else "seconds", count=count)
    return text(language, "waiting_estimate", place=shown, time=time)


def localised(table: Mapping[str, Any], language: str, default: Any) -> Any:
    """A value of a ``{language: value}`` table: this language, else English, else any."""
    if language in table:
        return table[language]
    return table.get("en", next(iter(table.values()), default))


def placeholders(message: str) -> set[str]:
    """The names of a message's placeholders."""
    return {name for _, name, _, _ in string.Formatter().parse(message) if name}


class _Lenient(string.Formatter):
    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        return kwargs.get(key, f"{{{key}}}") if isinstance(key, str) else ""
