"""What somebody has typed stays, whatever happens meanwhile; keys, drawer and steps back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driver import Talk, picture, upload
from playwright.sync_api import Route


@pytest.fixture
def seeing(talk: Talk) -> Talk:
    """A page with a picture in place."""
    talk.give(picture())
    return talk


def slow_network(talk: Talk, milliseconds: int) -> None:
    """Let every request take this much longer."""
    session = talk.page.context.new_cdp_session(talk.page)
    session.send("Network.enable")
    limits: dict[str, Any] = {"downloadThroughput": -1, "uploadThroughput": -1}
    limits |= {"offline": False, "latency": milliseconds}
    session.send("Network.emulateNetworkConditions", limits)


def wait_text(talk: Talk, words: str) -> None:
    """Wait until this stands in the box."""
    talk.page.wait_for_function(
        "words => document.querySelector('#box textarea').value === words", arg=words
    )


def test_typed_while_the_question_is_on_its_way(seeing: Talk) -> None:
    slow_network(seeing, 300)
    seeing.send("first")
    seeing.page.wait_for_timeout(60)
    seeing.page.keyboard.type(" and the next")
    seeing.page.wait_for_selector(".turns .question")
    wait_text(seeing, " and the next")
    seeing.wait_idle()
    assert seeing.questions() == ["first"]


def test_undo_and_offered_questions_leave_typed_words(seeing: Talk) -> None:
    seeing.ask("one")
    seeing.write("two")
    seeing.press("undo")
    wait_text(seeing, "one\ntwo")
    chips = seeing.page.locator("#about .asks .chip")
    chips.first.click()
    wait_text(seeing, "one\ntwo What is on the left?")
    seeing.write("")
    chips.first.click()
    chips.nth(1).click()
    wait_text(seeing, "What colour is it?")


def test_refused_edit_keeps_its_words(seeing: Talk) -> None:
    seeing.ask("one")
    seeing.settings()
    seeing.page.fill("#set-top_p input", "7")
    seeing.pause(300)
    seeing.press("edit")
    seeing.page.fill(".editor textarea", "much better words")
    seeing.page.press(".editor textarea", "Enter")
    assert "Top-p" in seeing.notice()
    assert seeing.page.input_value(".editor textarea") == "much better words"
    seeing.page.fill("#set-top_p input", "1")
    seeing.pause(300)
    seeing.page.press(".editor textarea", "Enter")
    seeing.page.wait_for_selector(".versions")
    assert seeing.questions() == ["much better words"]


def test_question_waits_for_its_picture(seeing: Talk) -> None:
    before = seeing.current_picture()
    held: list[Route] = []
    seeing.page.route("**/upload?*", lambda route: held.append(route))
    choose = "#picture input[type=file]"
    seeing.page.set_input_files(choose, upload(picture("#0000ff"), "b.png"))
    seeing.send("which?")
    assert "on its way" in seeing.notice()
    assert seeing.text() == "which?"
    held.pop().continue_()
    seeing.page.wait_for_selector(".turns .question")
    assert seeing.page.get_attribute(".turns .thumb img", "src") != before
    seeing.wait_idle()
    # A picture that cannot be used keeps the question here.
    seeing.page.set_input_files(choose, upload(b"no picture", "c.png"))
    seeing.send("and now?")
    assert "on its way" in seeing.notice()
    held.pop().continue_()
    seeing.page.wait_for_selector(".notice.error")
    seeing.pause(300)
    assert seeing.text() == "and now?"
    assert seeing.questions() == ["which?"]


def test_escape_stops_and_the_box_keeps_the_keyboard(seeing: Talk) -> None:
    focused = "document.activeElement === document.querySelector('#box textarea')"
    seeing.send("count 2000")
    seeing.wait_words(r"\b3\b")
    assert seeing.page.get_attribute("#log", "aria-busy") == "true"
    seeing.page.keyboard.press("Escape")
    seeing.wait_idle()
    assert "Stopped." in seeing.page.inner_text(".turns .note")
    assert seeing.page.get_attribute("#log", "aria-busy") == "false"
    seeing.send("count 2000")
    seeing.wait_words(r"\b3\b")
    seeing.stop()
    seeing.page.wait_for_function(focused)


def test_closed_drawer_is_out_of_reach(talk: Talk) -> None:
    closed = "document.querySelector('.sidebar-content').inert"
    talk.page.wait_for_function(closed)
    talk.menu()
    assert not talk.page.evaluate(closed)
    talk.page.focus("#new-chat")
    talk.page.keyboard.press("Escape")
    talk.page.wait_for_function(closed)


def test_back_and_forward_between_chats(seeing: Talk) -> None:
    seeing.ask("apples")
    seeing.press("new", 0)
    seeing.page.wait_for_selector(".welcome")
    seeing.page.wait_for_function("location.search === '?chat=new'")
    seeing.page.go_back()
    seeing.page.wait_for_selector(".turns .question")
    assert seeing.questions() == ["apples"]
    seeing.page.go_forward()
    seeing.page.wait_for_selector(".welcome")


def test_tab_that_was_away_shows_what_another_asked(
    seeing: Talk, tabs: Callable[..., Talk]
) -> None:
    seeing.ask("one")
    other = tabs().open(seeing.page.url.split("/")[-1])
    other.ask("two")
    seeing.page.bring_to_front()
    seeing.write("kept")
    seeing.page.evaluate("dispatchEvent(new Event('blur')); dispatchEvent(new Event('focus'))")
    seeing.page.wait_for_function("document.querySelectorAll('.turns .turn').length === 2")
    assert seeing.questions() == ["one", "two"]
    assert seeing.text() == "kept"


def test_lost_network_is_said_at_once(seeing: Talk) -> None:
    seeing.write("half a thought")
    seeing.page.evaluate("dispatchEvent(new Event('offline'))")
    assert "connection to the server was lost" in seeing.notice()
    seeing.page.evaluate("dispatchEvent(new Event('online'))")
    seeing.page.wait_for_selector(".notice", state="detached")
    assert seeing.text() == "half a thought"


def test_long_text_stays_inside_a_phone_on_its_side(tabs: Callable[..., Talk]) -> None:
    talk = tabs(viewport={"width": 844, "height": 390}, is_mobile=True, has_touch=True)
    talk.open("?chat=new")
    talk.give(picture())
    talk.write("line\n" * 12)
    talk.pause(100)
    box = talk.page.locator("#box").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 390
    assert talk.page.evaluate("document.querySelector('#log').clientHeight") > 60


def test_limits_are_said_where_the_model_cannot_say_them(talk: Talk) -> None:
    assert "real InstructBLIP weights" in talk.page.inner_text(".welcome .limits")
    talk.give(picture())
    talk.ask("左边是什么？")
    assert "understands English only" in talk.page.inner_text(".note.outside")
