"""Languages, themes, sizes, names for screen readers, and silence towards the outside."""

from __future__ import annotations

from collections.abc import Callable

from driver import Talk, picture

UNNAMED = """() => [...document.querySelectorAll('button, [role=button], a[href], input, textarea, select, img')]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length)
  .filter((e) => {
    const named = e.getAttribute('aria-label') || e.getAttribute('alt') || e.title
      || e.getAttribute('aria-labelledby') || e.innerText?.trim() || e.querySelector('img[alt]')?.alt || e.closest('label')?.innerText.trim()
      || (e.id && document.querySelector(`label[for="${e.id}"]`));
    return !named;
  }).map((e) => e.outerHTML.slice(0, 200))"""


def test_language_follows_the_browser_and_switches(tabs: Callable[..., Talk]) -> None:
    talk = tabs(locale="zh-CN").open("?chat=new")
    assert talk.page.inner_text("h1") == "看图对话"
    talk.write("草稿")
    talk.page.click("[data-act=language]")
    talk.page.wait_for_function("document.querySelector('h1')?.innerText === 'Chat with a picture'")
    talk.ready()
    assert talk.page.get_attribute("html", "lang") == "en"
    talk.page.wait_for_function("document.querySelector('#box textarea')?.value === '草稿'")
    assert talk.page.get_attribute("#box textarea", "placeholder") == "Ask about the picture…"
    talk.send("q")
    assert "Add a picture first" in talk.notice()
    talk.page.click("[data-act=language]")
    talk.page.wait_for_function("document.querySelector('h1')?.innerText === '看图对话'")
    talk.ready()
    talk.send("q")
    assert "请先添加图片" in talk.notice()
    assert talk.page.get_attribute("#box .submit-button", "aria-label") == "发送"


def test_theme_follows_the_system_and_switches(tabs: Callable[..., Talk]) -> None:
    talk = tabs(color_scheme="dark").open("?chat=new")
    dark = "document.body.classList.contains('dark')"
    assert talk.page.evaluate(dark)
    talk.page.click("[data-act=theme]")
    assert not talk.page.evaluate(dark)
    talk.page.reload()
    talk.ready()
    talk.pause(300)
    assert not talk.page.evaluate(dark)
    talk.page.click("[data-act=theme]")
    assert talk.page.evaluate(dark)


def test_phone(tabs: Callable[..., Talk]) -> None:
    talk = tabs(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True).open(
        "?chat=new"
    )
    page = talk.page
    talk.give(picture())
    for number in range(4):
        talk.ask(f"question {number} with enough words that the line wraps")
    talk.ask("x" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#log').scrollWidth <= 390")
    box = page.locator("#box").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert box["y"] + box["height"] <= 844
    assert not page.is_visible("#side")
    assert page.is_visible("#strip img")
    # The newest answer is in view.
    assert page.evaluate(
        "(() => { const l = document.querySelector('#log');"
        " return l.scrollHeight - l.scrollTop - l.clientHeight < 80 })()"
    )
    talk.menu()
    assert page.is_visible("#new-chat")
    page.click("#new-chat")
    page.wait_for_selector(".welcome")
    page.wait_for_selector(".sidebar.open", state="detached")


def test_everything_has_a_name(talk: Talk) -> None:
    talk.give(picture())
    talk.ask("one")
    talk.press("retry")
    talk.page.wait_for_selector(".versions")
    talk.menu()
    talk.page.click("#settings button")
    talk.pause(400)
    assert talk.page.evaluate(UNNAMED) == []
    log = talk.page.locator("#log")
    assert log.get_attribute("role") == "log"
    assert log.get_attribute("aria-live") == "polite"


def test_offered_questions_are_asked_without_their_translation(tabs: Callable[..., Talk]) -> None:
    talk = tabs(locale="zh-CN").open("?chat=new")
    chip = talk.page.locator("#about .asks .chip").first
    assert chip.inner_text() == "What is on the left?（左边是什么？）"
    chip.click()
    assert talk.text() == "What is on the left?"


def test_examples_and_offered_questions(talk: Talk) -> None:
    talk.page.locator(".examples .chip").first.click()
    talk.page.wait_for_selector(".turns .turn")
    asked = talk.questions()[0]
    assert talk.answers() == [f"Turn 1: {asked}"]
    talk.page.locator("#about .asks .chip").first.click()
    assert talk.text() == "What is on the left?"
