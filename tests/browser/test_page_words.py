"""The two languages say the same things. No browser needed."""

from __future__ import annotations

import re
from pathlib import Path

from webui import i18n
from webui.render import statistics
from webui.theme import script, translations

ROOT = Path(__file__).parent.parent.parent


def test_same_keys_and_placeholders() -> None:
    english, chinese = i18n.messages("en"), i18n.messages("zh")
    assert english.keys() == chinese.keys()
    for key, message in english.items():
        assert i18n.placeholders(message) == i18n.placeholders(chinese[key]), key
        assert message.strip()
        assert chinese[key].strip()


def test_every_key_in_the_code_exists() -> None:
    used: set[str] = set()
    for path in (ROOT / "webui").glob("*.py"):
        source = path.read_text("utf-8")
        used |= set(re.findall(r'text\((?:who\.)?language, "(\w+)"', source))
        used |= set(re.findall(r'\bt\("(\w+)"\)', source))
        used |= set(re.findall(r'_hint\(who, "(\w+)"', source))
    assert used <= i18n.messages("en").keys()


def test_language_of_a_request() -> None:
    class Request:
        def __init__(self, cookie: str = "", accept: str = "") -> None:
            self.cookies = {"lang": cookie} if cookie else {}
            self.headers = {"accept-language": accept}

    assert i18n.language_of(Request("zh", "en-US")) == "zh"
    assert i18n.language_of(Request("xx", "de-DE,zh;q=0.8,en;q=0.5")) == "zh"
    assert i18n.language_of(Request(accept="fr")) == "en"
    assert i18n.language_of(None) == "en"


def test_places_in_words() -> None:
    said = [i18n.place_text("en", n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102)]
    assert [s.split()[0] for s in said] == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd"]  # fmt: skip
    assert i18n.place_text("zh", 3) == "排在第 3 位…"


def test_values_cannot_break_a_message() -> None:
    assert "{0.__class__}" in i18n.text("en", "chats_not_found", search="{0.__class__}")
    assert i18n.text("en", "chats_not_found") == "No chat contains “{search}”."
    assert "</script" not in script()[len("<script>") : -len("</script>")]
    assert translations().translations_dict.keys() == {"en", "zh", "zh-CN", "zh-TW"}


def test_one_token_and_one_turn_are_no_plurals() -> None:
    values = {"new_tokens": 1, "first_token": 0.02, "trimmed_turns": 1}
    line = statistics(values, "en")
    assert line.endswith("20 ms · 1 token · the oldest turn no longer fitted and was left out")
    assert statistics(values | {"new_tokens": 2, "decode": 1.0}, "en").count("2 tokens") == 1
