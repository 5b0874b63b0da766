"""What the server or a proxy does not take is told in words, and never keeps the page from opening."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from driver import TEXTAREA, Talk, picture, upload
from playwright.sync_api import Route

PROXY_PAGE = "<html>\r\n<head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


@pytest.fixture(params=["en", "zh"])
def talk(request: pytest.FixtureRequest, tabs: Callable[..., Talk]) -> Talk:
    """A page in each language."""
    return tabs(locale="zh-CN" if request.param == "zh" else "en-US").open("?chat=new")


def told(talk: Talk, selector: str) -> str:
    """What stands there, waited for; in the page's language, and no answer of HTTP or a program."""
    # Gradio's own words stand there for some milliseconds, until page.js has found them.
    chinese = talk.page.evaluate("document.documentElement.lang") == "zh-CN"
    talk.page.wait_for_function(
        "([s, zh]) => { const said = document.querySelector(s)?.innerText.trim() || '';"
        " return said.length > 6 && !said.includes('HTTP') && /[一-鿿]/.test(said) === zh }",
        arg=[selector, chinese],
    )
    words = talk.page.inner_text(selector)
    assert not re.search(r"[{<]|\b4\d\d\b|\b5\d\d\b|nginx", words), words
    return words


def forgive(talk: Talk) -> None:
    """The browser itself reports each refused request, and Gradio that it gave up."""
    refused = ("Failed to load resource", "Response", "HTTP", "SyntaxError")
    talk.problems[:] = [p for p in talk.problems if not any(word in p for word in refused)]


@pytest.mark.parametrize("length", [150_000, 1_500_000])
def test_a_page_opens_with_a_draft_that_is_too_long_to_be_sent(length: int, talk: Talk) -> None:
    words = ("word " * (length // 5)).strip()
    talk.give(picture())
    talk.send(words)
    told(talk, "#refused.notice")
    assert talk.text() == words
    talk.reload()
    talk.page.wait_for_function(
        "n => document.querySelector('#box textarea').value.length === n", arg=len(words)
    )
    talk.write("short")
    talk.give(picture())
    talk.page.press(TEXTAREA, "Enter")
    talk.page.wait_for_selector(".turns .turn:not(.live)")
    assert talk.questions() == ["short"]
    forgive(talk)


def test_a_page_opens_with_settings_that_are_too_long_to_be_sent(talk: Talk) -> None:
    talk.page.evaluate("localStorage.setItem('sampling', JSON.stringify(['x'.repeat(200000)]))")
    talk.reload()
    assert talk.page.is_visible(".welcome")


def test_an_upload_without_a_cookie(talk: Talk) -> None:
    talk.write("my question")
    talk.page.context.clear_cookies()
    talk.page.set_input_files("#picture input[type=file]", upload(picture()))
    told(talk, "[data-testid=toast-body]")
    told(talk, "#refused.notice")
    assert talk.text() == "my question"
    talk.reload()
    talk.page.wait_for_function("document.querySelector('#box textarea').value === 'my question'")
    forgive(talk)


@pytest.mark.parametrize("status", [403, 413, 502])
def test_the_page_of_a_proxy_is_not_shown_as_it_is(status: int, talk: Talk) -> None:
    def refuse(route: Route) -> None:
        page = PROXY_PAGE.format(f"{status} nginx")
        route.fulfill(status=status, content_type="text/html", body=page)

    talk.page.route("**/gradio_api/upload*", refuse)
    talk.page.set_input_files("#picture input[type=file]", upload(picture()))
    told(talk, "[data-testid=toast-body]")
    told(talk, "#refused.notice")
    talk.page.unroute("**/gradio_api/upload*")
    talk.give(picture())
    talk.page.route("**/gradio_api/run/**", refuse)
    talk.send("my question")
    talk.page.wait_for_selector("#refused.notice")
    told(talk, "#refused.notice")
    assert talk.text() == "my question"
    talk.page.unroute("**/gradio_api/run/**")
    talk.page.press(TEXTAREA, "Enter")
    talk.page.wait_for_selector(".turns .turn:not(.live)")
    assert talk.questions() == ["my question"]
    forgive(talk)


def test_a_file_that_the_browser_finds_too_large(talk: Talk) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(34 * 2**20)
    talk.page.set_input_files("#picture input[type=file]", upload(data, "big.png"))
    told(talk, "[data-testid=toast-body]")
    talk.page.wait_for_function(  # Gradio's own words go at once
        "!document.querySelector('[data-testid=toast-body]')?.innerText.includes('maximum')"
    )
    forgive(talk)


@pytest.mark.parametrize("data", [b"words", bytes(34 * 2**20)], ids=["words", "large"])
def test_the_picture_stays_in_its_box(data: bytes, talk: Talk) -> None:
    talk.give(picture())
    before = talk.current_picture()
    talk.page.set_input_files("#picture input[type=file]", upload(data, "bad.png"))
    words = told(talk, "[data-testid=toast-body]")
    talk.page.wait_for_selector("#picture .image-frame img")
    talk.pause(500)
    assert talk.page.is_visible("#picture .image-frame img")
    assert talk.current_picture() == before
    if data == b"words":
        assert told(talk, "#refused.notice") in words
    forgive(talk)
