"""Asking, watching, stopping, coming back, and going back in the conversation."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from driver import TEXTAREA, Talk, picture
from playwright.sync_api import Page


@pytest.fixture
def seeing(talk: Talk) -> Talk:
    """A page with a picture in place."""
    talk.give(picture())
    return talk


def test_text_grows_and_has_figures(seeing: Talk) -> None:
    seeing.send("count 2000")
    lengths = []
    for mark in (r"\b3\b", r"\b12\b", r"\b25\b"):
        seeing.wait_words(mark)
        lengths.append(len(seeing.running_text()))
    assert lengths == sorted(set(lengths))
    assert not seeing.text()
    seeing.stop()
    assert seeing.ask("count 40") == " ".join(map(str, range(1, 41)))
    assert re.fullmatch(
        r"first token [\d.]+ m?s · [\d.]+ tokens/s · 40 tokens",
        seeing.page.locator(".stats").last.inner_text(),
    )


def test_stop_keeps_what_was_said(seeing: Talk) -> None:
    seeing.send("count 2000")
    seeing.wait_words(r"\b5\b")
    seeing.stop()
    said = seeing.answers()[0]
    assert said.startswith("1 2 3 4 5")
    assert len(said.split()) < 2000
    assert seeing.ask("and on").startswith("Turn 2: and on")


def test_stop_before_the_first_word(seeing: Talk, tabs: Callable[..., Talk]) -> None:
    seeing.send("count 2000")
    seeing.page.wait_for_selector("#box .stop-button")
    seeing.stop()
    assert seeing.page.is_visible("#box .submit-button")


def test_a_chat_deleted_in_another_tab_ends_its_answer_here(
    seeing: Talk, tabs: Callable[..., Talk]
) -> None:
    seeing.send("count 2000")
    seeing.wait_words(r"\b5\b")
    other = tabs().open()
    other.menu()
    other.page.once("dialog", lambda dialog: dialog.accept())
    other.page.hover(".sidebar .chats li:nth-child(1)")
    other.page.click(".sidebar .chats li:nth-child(1) [data-act=delete]")
    other.page.wait_for_selector(".welcome")
    assert "not here any more" in seeing.notice()
    seeing.wait_idle()
    assert seeing.page.is_visible("#box .submit-button")
    seeing.give(picture("#0000aa"))
    assert seeing.ask("and on").startswith("Turn 1: and on")


def test_reload_in_mid_answer_goes_on(seeing: Talk) -> None:
    seeing.send("count 2000")
    seeing.wait_words(r"\b8\b")
    seeing.write("half a thought")
    seeing.reload()
    seeing.wait_words(r"\b20\b")
    assert seeing.text() == "half a thought"
    after = len(seeing.running_text().split())
    seeing.wait_words(rf"\b{after + 10}\b")
    seeing.stop()
    assert len(seeing.answers()) == 1


def test_leaving_and_coming_back_to_a_running_chat(seeing: Talk) -> None:
    seeing.send("count 2000")
    seeing.wait_words(r"\b4\b")
    seeing.press("new", 0)
    seeing.page.wait_for_selector(".welcome")
    assert not seeing.page.query_selector(".turn.live")
    seeing.menu()
    seeing.page.click(".sidebar .chats a")
    after = len(seeing.running_text().split())
    seeing.wait_words(rf"\b{after + 10}\b")
    seeing.stop()
    assert len(seeing.answers()) == 1


def test_second_send_is_refused_and_kept(seeing: Talk) -> None:
    seeing.send("count 2000")
    seeing.page.wait_for_selector(".turn.live")
    seeing.send("me too")
    assert "still being written" in seeing.notice()
    assert seeing.text() == "me too"
    seeing.stop()
    seeing.page.wait_for_selector(".notice", state="detached")
    assert seeing.text() == "me too"
    assert len(seeing.answers()) == 1


def test_empty_and_pictureless_questions(talk: Talk) -> None:
    talk.send("   ")
    assert "Write a question" in talk.notice()
    talk.send("What is this?")
    talk.page.wait_for_function(
        "document.querySelector('.notice')?.innerText.includes('picture first')"
    )
    assert talk.text() == "What is this?"
    talk.give(picture())
    talk.page.press(TEXTAREA, "Enter")
    talk.page.wait_for_selector(".turns .turn")
    assert talk.answers()[-1].endswith("What is this?")
    assert not talk.text()


def test_input_method_enter_sends_nothing(seeing: Talk) -> None:
    session = seeing.page.context.new_cdp_session(seeing.page)
    seeing.page.focus(TEXTAREA)
    session.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    for kind in ("rawKeyDown", "keyUp"):
        session.send(
            "Input.dispatchKeyEvent",
            {"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229},
        )
    session.send("Input.insertText", {"text": "你好"})
    seeing.pause(300)
    assert seeing.text() == "你好"
    assert not seeing.page.query_selector(".turn")


def test_retry_versions_edit_undo(seeing: Talk) -> None:
    page = seeing.page
    first = seeing.ask("one")
    seeing.press("retry")
    page.wait_for_selector(".versions")
    assert "temperature 0.7" in seeing.notice()
    assert page.inner_text(".versions").split() == ["‹", "2/2"]
    assert seeing.answers() == ["Turn 1: one (sampled)"]
    seeing.ask("two")
    assert len(seeing.questions()) == 2
    page.click(".versions button")
    page.wait_for_function("document.querySelector('.versions')?.innerText.includes('1/2')")
    assert seeing.answers() == [first]
    page.click(".versions button")  # forward again, down to the newest turn below
    page.wait_for_function("document.querySelectorAll('.turns .turn').length === 2")
    assert seeing.questions() == ["one", "two"]

    seeing.press("edit", 0)
    page.fill(".editor textarea", "uno")
    page.press(".editor textarea", "Enter")
    page.wait_for_function("document.querySelector('.versions')?.innerText.includes('3/3')")
    assert seeing.questions() == ["uno"]
    assert seeing.answers() == ["Turn 1: uno"]

    seeing.press("undo")
    page.wait_for_selector(".welcome")
    assert seeing.text() == "uno"


def test_each_turn_shows_its_own_picture(seeing: Talk) -> None:
    seeing.ask("red?")
    seeing.give(picture("#2020c0"))
    seeing.ask("blue?")
    shown = [
        image.get_attribute("src") for image in seeing.page.query_selector_all(".turns .thumb img")
    ]
    assert len(set(shown)) == 2
    assert seeing.widths() == [120, 120]
    # Retry of the first turn keeps the first turn's picture.
    seeing.press("retry", 0)
    seeing.page.wait_for_selector(".versions")
    assert seeing.page.get_attribute(".turns .thumb img", "src") == shown[0]


def test_markup_is_shown_as_written(seeing: Talk) -> None:
    nasty = "<img src=x onerror=alert(1)> **b** $$x$$ `c` ${1} {{value}} &amp;"
    assert seeing.ask(nasty) == f"Turn 1: {nasty}"
    assert seeing.questions() == [nasty]


def test_engine_error_and_refusal(seeing: Talk) -> None:
    seeing.send("fail")
    seeing.page.wait_for_selector(".note.bad")
    assert "no memory left" in seeing.page.inner_text(".note.bad")
    seeing.ask("outside of it")
    assert "real InstructBLIP weights" in seeing.page.inner_text(".note.outside")


def test_wrong_settings_are_explained(seeing: Talk) -> None:
    seeing.settings()
    seeing.page.fill("#set-top_p input", "7")
    seeing.pause(300)
    seeing.send("hello")
    notice = seeing.notice()
    assert "Top-p" in notice
    assert "0.01" in notice
    assert seeing.text() == "hello"
    seeing.page.fill("#set-top_p input", "0.9")
    seeing.page.fill("#set-temperature input", "0.5")
    seeing.pause(300)
    assert seeing.ask("hello").endswith("(sampled)")
    seeing.reload()
    assert seeing.ask("still").endswith("(sampled)")


def test_chat_list(talk: Talk, tabs: Callable[..., Talk]) -> None:
    page: Page = talk.page
    talk.give(picture())
    talk.ask("about apples")
    talk.press("new", 0)
    page.wait_for_selector(".welcome")
    talk.give(picture("#00aa00"))
    talk.ask("about pears")
    talk.menu()
    assert page.locator(".sidebar .chats a").all_inner_texts() == ["about pears", "about apples"]
    page.fill("#search textarea, #search input", "APPLE")
    page.wait_for_function("document.querySelectorAll('.sidebar .chats a').length === 1")
    page.click(".sidebar .chats a")
    page.wait_for_function(
        "document.querySelector('.question .words')?.innerText === 'about apples'"
    )
    page.fill("#search textarea, #search input", "")
    page.wait_for_function("document.querySelectorAll('.sidebar .chats a').length === 2")

    page.once("dialog", lambda dialog: dialog.accept("fruit"))
    page.hover(".sidebar .chats li:nth-child(2)")
    page.click(".sidebar .chats li:nth-child(2) [data-act=rename]")
    page.wait_for_selector(".sidebar .chats a:text-is('fruit')")
    page.once("dialog", lambda dialog: dialog.accept())
    page.hover(".sidebar .chats li:nth-child(2)")
    page.click(".sidebar .chats li:nth-child(2) [data-act=delete]")
    page.wait_for_selector(".sidebar .chats a:text-is('fruit')", state="detached")
    page.wait_for_selector(".welcome")

    other = tabs(fresh=True).open()
    other.menu()
    assert "No chats yet" in other.page.inner_text(".sidebar")
