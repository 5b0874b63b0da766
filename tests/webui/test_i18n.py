"""Messages: both languages say the same things, every key that is used exists, and none is left over."""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from slow_engine import CARD

from instructblip import errors
from instructblip.engine.base import FinishReason, Phase
from instructblip.errors import InstructBlipError, OutOfMemory
from instructblip.images import NO_END
from webui.i18n import (
    LANGUAGES,
    coded_text,
    error_text,
    language_of,
    localised,
    messages,
    place_text,
    placeholders,
    text,
)
from webui.presets import presets
from webui.sampling import FIELDS

ROOT = Path(__file__).resolve().parents[2]
KEYS = sorted(messages("en"))
# Said at the start, at the terminal, in English.
STARTUP = {
    "address", "port_taken", "bad_setting", "key_damaged", "store_damaged", "store_newer",
    "share_failed", "checkpoint_kind", "checkpoint_tensors", "properties",
    "tokenizer", "checkpoint_ambiguous", "checkpoint_file", "checkpoint_misfit", "checkpoint_value",
    "device_unknown",
    "dtype_unknown", "kv_memory",
    # Said by the command line alone.
    "auth_file", "encoding_unknown", "folder_empty", "list_columns", "list_empty", "list_spreadsheet",
    "list_unread", "no_picture", "no_prompt", "out_refused", "picture_address", "text_encoding", "two_ways",
    "write_failed",
}  # fmt: skip
_HAN = re.compile("[\u4e00-\u9fff]")


# --- the two files ---------------------------------------------------------------------------------


def test_both_languages_have_the_same_keys_once() -> None:
    for language in LANGUAGES:
        pairs: list[tuple[str, str]] = json.loads(
            (ROOT / "webui" / "locales" / f"{language}.json").read_text("utf-8"),
            object_pairs_hook=lambda found: found,
        )
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), language
        assert sorted(keys) == KEYS, language


@pytest.mark.parametrize("key", KEYS)
def test_a_message_says_something_in_both_languages_with_the_same_values(key: str) -> None:
    english, chinese = (messages(language)[key] for language in LANGUAGES)
    assert isinstance(english, str)
    assert english.strip() or key == "list_comma"
    assert chinese.strip()
    assert placeholders(english) == placeholders(chinese)
    for message in (english, chinese):
        for _, name, spec, conversion in string.Formatter().parse(message):
            assert name is None or name.isidentifier()
            assert not spec
            assert not conversion
    if key != "language":  # it names the other one
        assert not _HAN.search(english)


def test_chinese_is_chinese() -> None:
    same = {key for key in KEYS if messages("zh")[key] == messages("en")[key]}
    assert same <= {"version", "ui_top_k", "ui_top_p"}, same


# --- what the code uses ----------------------------------------------------------------------------


@cache
def syntax(package: str) -> dict[Path, ast.Module]:
    files = sorted((ROOT / package).rglob("*.py"))
    return {path: ast.parse(path.read_text("utf-8")) for path in files}


def literals() -> set[str]:
    """Every text in the page's code."""
    return {
        node.value
        for tree in syntax("webui").values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def asked_keys() -> Iterator[str]:
    """First keys of ``text(language, "key")``, ``_hint(who, "key")`` and ``t("key")``."""
    at = {"text": 1, "_hint": 1, "t": 0, "say": 0}
    for path, tree in syntax("webui").items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "say" and path.name != "server.py":
                continue
            arguments = node.args[at[name] : at[name] + 1] if name in at else []
            for part in (n for a in arguments for n in ast.walk(a)):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def formed_keys() -> set[str]:
    """Keys that the code puts together."""
    fields = {f"ui_{name}{tail}" for name in FIELDS for tail in ("", "_info")}
    phases = {f"phase_{phase}" for phase in Phase if phase is not Phase.DONE}
    finishes = {f"finish_{f}" for f in ("cancelled", "length", "deadline", "interrupted")}
    named = {f"ui_preset_{name}" for name in presets(CARD)}
    notes = {f"hint_{NO_END}"}  # of pictures
    return fields | named | phases | finishes | notes | {f"language_{x}" for x in LANGUAGES}


def raised_codes() -> set[str]:
    """Every ``code="…"`` of an error, and the class attributes."""
    found = {kind.code for kind in vars(errors).values() if hasattr(kind, "code")}
    for package in ("webui", "instructblip"):
        for tree in syntax(package).values():
            for node in ast.walk(tree):
                if isinstance(node, ast.keyword) and node.arg == "code":
                    parts = ast.walk(node.value)
                    found |= {p.value for p in parts if isinstance(p, ast.Constant)}
    return {
        code for code in found if isinstance(code, str) and re.fullmatch("[a-z][a-z_]*[a-z]", code)
    }


def bounded_codes() -> set[str]:
    """Both codes of every ``Bound("name", …)``."""
    names = {
        node.args[0].value
        for tree in syntax("webui").values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Bound" and node.args
        if isinstance(node.args[0], ast.Constant)
    }
    return {f"busy_{name}{tail}" for name in names for tail in ("", "_all")}


def test_every_key_that_is_asked_for_exists() -> None:
    asked = {key for key in asked_keys() if re.fullmatch("[a-z][a-z0-9_]*", key)}
    assert len(asked) > 50
    prefixes = {"ui_", "ui_preset_", "phase_", "finish_", "error_", "unknown_", "hint_"}
    values = {"done", "decode", "append", "refresh", "no", "name", "en"}
    assert asked - prefixes - values <= set(KEYS), sorted(asked - set(KEYS))
    assert formed_keys() <= set(KEYS)


def test_every_reason_to_end_is_told() -> None:
    told = {key.removeprefix("finish_") for key in formed_keys() if key.startswith("finish_")}
    assert {str(reason) for reason in FinishReason} - told == {"stop", "error"}


def test_every_error_that_a_page_can_meet_is_translated() -> None:
    codes = (
        raised_codes()
        | bounded_codes()
        | {"unknown_chat", "unknown_turn", "unknown_picture", "internal"}
    )
    assert len(codes) > 30
    missing = {code for code in codes - STARTUP if f"error_{code}" not in KEYS}
    assert not missing
    assert not {code for code in STARTUP if f"error_{code}" in KEYS}


def test_no_message_is_left_over() -> None:
    from webui.theme import _SCRIPT_KEYS

    used = literals() | formed_keys() | set(_SCRIPT_KEYS)
    used |= {f"error_{code}" for code in raised_codes() | bounded_codes() | literals()}
    used |= {f"error_unknown_{kind}" for kind in ("chat", "turn", "picture")}
    assert set(KEYS) - used == set()


def test_the_script_asks_only_for_what_it_is_given() -> None:
    from webui.theme import _SCRIPT_KEYS, script

    for path in (ROOT / "webui" / "static").glob("*.js"):
        asked = set(re.findall(r"""\bsay\(\s*["']([a-z_]+)["']""", path.read_text("utf-8")))
        assert asked <= {*_SCRIPT_KEYS, "box"}, path.name
    assert "/*TEXT*/" not in script()


# --- filling in ------------------------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=()), max_size=30)


@given(st.sampled_from(KEYS), st.sampled_from(LANGUAGES), ANY)
@example("rename", "en", "{title} {0} {} }{ {title.__class__}")
def test_a_value_appears_as_it_is(key: str, language: str, value: str) -> None:
    message = messages(language)[key]
    filled = text(language, key, **dict.fromkeys(placeholders(message), value))
    assert filled.count(value) >= len(placeholders(message))
    assert text(language, key).count("{") == message.count("{")  # what is missing stays visible


@given(st.dictionaries(ANY, st.none() | st.integers() | ANY, max_size=4))
@example({"key": "a", "language": "b"})
def test_an_error_is_told_whatever_its_values(values: dict[str, Any]) -> None:
    for code in ("bad_parameter", "picture_too_large", "never_heard_of", "{odd}"):
        for language in LANGUAGES:
            assert coded_text(language, code, values, "In English.")


def test_errors_are_told_in_the_language_of_the_page() -> None:
    error = OutOfMemory("The device has no memory.")
    assert "memory" in error_text("en", error)
    assert _HAN.search(error_text("zh", error))
    assert error_text("zh", InstructBlipError("Said in full.", code="new")) == "Said in full."
    for language in LANGUAGES:
        unexpected = error_text(language, ZeroDivisionError("secret detail"))
        assert "ZeroDivisionError" in unexpected
        assert "secret detail" not in unexpected


# --- which language --------------------------------------------------------------------------------


def request(cookie: str = "", accept: str = "") -> SimpleNamespace:
    return SimpleNamespace(cookies={"lang": cookie}, headers={"accept-language": accept})


@pytest.mark.parametrize(
    ("cookie", "accept", "language"),
    [
        ("", "", "en"), ("zh", "en", "zh"), ("en", "zh", "en"), ("xx", "zh-CN", "zh"),
        ("", "zh-TW,zh;q=0.9,en;q=0.8", "zh"), ("", "de-DE,de;q=0.9,zh;q=0.5", "zh"),
        ("", "fr", "en"), ("", "ZH-hans", "zh"), ("", "en-GB,zh", "en"), ("", "*", "en"),
        ("../../x", "", "en"),
    ],
)  # fmt: skip
def test_the_cookie_then_the_browser_then_english(cookie: str, accept: str, language: str) -> None:
    assert language_of(request(cookie, accept)) == language


@given(ANY, ANY)
def test_any_header_gives_a_language(cookie: str, accept: str) -> None:
    assert language_of(request(cookie, accept)) in LANGUAGES


def test_no_request_is_english() -> None:
    assert language_of(None) == "en"
    assert language_of(object()) == "en"


@pytest.mark.parametrize(
    ("place", "words"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"),
     (21, "21st"), (22, "22nd"), (100, "100th"), (101, "101st"), (111, "111th"), (113, "113th")],
)  # fmt: skip
def test_places_in_line(place: int, words: str) -> None:
    assert place_text("en", place).startswith(f"{words} ")
    assert str(place) in place_text("zh", place)


@pytest.mark.parametrize(
    ("seconds", "words", "chinese"),
    [
        (0.0, "1 s", "1 秒"), (0.2, "1 s", "1 秒"), (11.2, "12 s", "12 秒"),
        (89.9, "90 s", "90 秒"), (90, "2 min", "2 分钟"), (7200, "120 min", "120 分钟"),
    ],
)  # fmt: skip
def test_the_time_until_it_is_ones_turn(seconds: float, words: str, chinese: str) -> None:
    assert place_text("en", 3, seconds) == f"3rd in line, about {words}…"
    assert place_text("zh", 3, seconds) == f"排在第 3 位，约 {chinese}…"


def test_a_table_of_languages_falls_back() -> None:
    assert localised({"en": 1, "zh": 2}, "zh", 0) == 2
    assert localised({"en": 1}, "zh", 0) == 1
    assert localised({"zh": 2}, "en", 0) == 2
    assert localised({}, "en", 0) == 0
