"""Presets of the answer settings, and beams: progress in the answer's place, then the whole text."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from driver import Talk, picture

BAR = ".turn.live .answer progress"


@pytest.fixture
def seeing(talk: Talk) -> Talk:
    """A page with a picture in place."""
    talk.give(picture())
    return talk


def bar(talk: Talk, least: float) -> float:
    """Wait until the search has come so far; → how far it is."""
    talk.page.wait_for_function(
        f"least => document.querySelector('{BAR}')?.value >= least", arg=least
    )
    return float(talk.page.eval_on_selector(BAR, "bar => bar.value"))


def value(talk: Talk, name: str) -> str:
    """What a field of the settings shows."""
    return talk.page.input_value(f"#set-{name} input")


def test_a_preset_fills_the_fields_which_stay_editable(seeing: Talk) -> None:
    page = seeing.page
    seeing.settings()
    assert seeing.preset() == "Standard"
    page.fill("#set-seed textarea, #set-seed input", "7")
    seeing.choose_preset("Creative")
    assert [value(seeing, name) for name in ("temperature", "top_p")] == ["1", "0.9"]
    assert seeing.ask("one") == "Turn 1: one (sampled)"
    assert page.input_value("#set-seed textarea, #set-seed input") == "7"

    seeing.choose_preset("LAVIS beams")
    assert value(seeing, "repetition_penalty") == "1.5"
    assert value(seeing, "max_new_tokens") == "255"
    page.click("#beam-search button")
    page.wait_for_selector("#set-num_beams input")
    seeing.pause()
    assert [value(seeing, name) for name in ("num_beams", "length_penalty")] == ["5", "1"]
    page.fill("#set-num_beams input", "3")
    page.wait_for_function("!document.querySelector('#preset input:checked')")
    assert seeing.ask("two") == "Turn 2: two (3 beams)"

    seeing.reload()  # with the settings folded away again
    assert seeing.ask("three") == "Turn 3: three (3 beams)"
    seeing.settings()
    assert not seeing.preset()
    seeing.choose_preset("LAVIS beams")
    seeing.reload()
    assert seeing.ask("four") == "Turn 4: four (5 beams)"
    seeing.settings()
    assert seeing.preset() == "LAVIS beams"
    page.click("#reset")
    page.wait_for_function("document.querySelector('#preset input:checked')?.value === 'standard'")
    assert seeing.ask("five") == "Turn 5: five"


def test_wrong_beams_are_explained(seeing: Talk) -> None:
    seeing.settings()
    seeing.page.click("#beam-search button")
    seeing.page.wait_for_selector("#set-num_beams input")
    seeing.pause()
    seeing.page.fill("#set-num_beams input", "17")
    seeing.pause(300)
    seeing.send("hello")
    assert "Beams = 17 is not allowed: use 1 to 16." in seeing.notice()
    assert seeing.text() == "hello"


def test_beams_show_progress_and_the_text_comes_whole(seeing: Talk) -> None:
    seeing.settings()
    seeing.choose_preset("LAVIS beams")
    seeing.send("count 2000")
    first = bar(seeing, 0.01)
    state = seeing.page.inner_text(".turn.live .state")
    assert re.fullmatch(r"Comparing 5 beams… \d+ % of the longest answer", state)
    assert seeing.running_text() == ""
    assert bar(seeing, first + 0.05) > first
    seeing.write("half a thought")
    seeing.reload()  # the search goes on where it is
    again = bar(seeing, first + 0.05)
    assert bar(seeing, again + 0.02) > again
    assert seeing.text() == "half a thought"
    seeing.stop()
    assert seeing.ask("count 40") == " ".join(map(str, range(1, 41)))
    figures = seeing.page.locator(".stats").last.inner_text()
    assert re.fullmatch(r"[\d.]+ s · 5 beams · 40 tokens", figures)


def test_stop_ends_a_search(seeing: Talk) -> None:
    seeing.settings()
    seeing.choose_preset("LAVIS beams")
    seeing.send("count 2000")
    bar(seeing, 0.01)
    seeing.stop()
    seeing.choose_preset("Standard")
    assert seeing.ask("and on") == "Turn 1: and on"


def test_answering_again_with_beams_samples_them(seeing: Talk) -> None:
    seeing.settings()
    seeing.choose_preset("LAVIS beams")
    seeing.ask("one")
    seeing.press("retry")
    seeing.page.wait_for_selector(".versions")
    assert seeing.answers() == ["Turn 1: one (sampled) (5 beams)"]
    assert "temperature 0.7" in seeing.notice()


def test_presets_in_chinese_on_a_phone(tabs: Callable[..., Talk]) -> None:
    talk = tabs(
        locale="zh-CN", viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
    ).open("?chat=new")
    talk.give(picture())
    talk.settings()
    assert talk.preset() == "标准"
    names = talk.page.locator("#preset label").all_inner_texts()
    assert [name.strip() for name in names] == ["标准", "发散", "LAVIS 束搜索"]
    talk.choose_preset("LAVIS 束搜索")
    talk.page.click(".sidebar.open .toggle-button")
    talk.page.wait_for_selector(".sidebar.open", state="detached")
    talk.send("count 30")
    bar(talk, 0.02)
    assert re.match(
        r"正在比较 5 条束… 已到最长回答的 \d+%", talk.page.inner_text(".turn.live .state")
    )
    assert talk.page.evaluate("document.documentElement.scrollWidth") <= 390
    talk.wait_idle()
    assert talk.page.inner_text(".stats").endswith("5 条束 · 共 30 个 token")
