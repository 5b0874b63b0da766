"""Empty: the wording is in the grammar (english.py). Goes when language.py no longer reads it."""

from __future__ import annotations

PHRASINGS: dict[str, tuple[str, ...]] = {}
TEST_PHRASINGS: dict[str, tuple[str, ...]] = {}
