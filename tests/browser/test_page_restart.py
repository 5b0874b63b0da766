"""The server dies and comes back; the page recovers by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import Server, Talk, picture, slow_server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own for each test here."""
    running = slow_server(tmp_path_factory.mktemp("restart") / "data").start()
    yield running
    running.kill()


def test_sigkill_and_restart_bring_the_chat_back(tabs: Callable[..., Talk], server: Server) -> None:
    talk = tabs().open("?chat=new")
    talk.give(picture())
    talk.ask("first")
    talk.send("count 2000")
    talk.wait_words(r"\b40\b")
    talk.write("still typing")
    server.kill()
    talk.page.wait_for_timeout(500)
    server.start()
    # Gradio notices the loss and loads the page anew.
    talk.page.wait_for_selector(".turns .note:has-text('server stopped during this answer')")
    assert talk.page.locator(".turns .turn").count() == 2
    assert talk.answers()[0] == "Turn 1: first"
    assert talk.answers()[1].startswith("1 2 3 4 5 6 7 8")
    assert talk.text() == "still typing"
    assert talk.widths() == [120, 120]
    assert talk.ask("and now").endswith("and now")
    talk.problems.clear()  # the lost connection itself


def test_a_page_left_open_over_a_restart_goes_on_with_its_chat(
    tabs: Callable[..., Talk], tmp_path: Path
) -> None:
    server = slow_server(tmp_path / "data", delay=0.01).start()
    try:
        talk = tabs(url=server.url).open("?chat=new")
        talk.give(picture())
        talk.ask("what is first here")
        server.kill()
        server.start()
        talk.send("what is second here")
        for _ in range(60):  # as a person would: the words are still there, so Enter again
            talk.page.wait_for_timeout(1000)
            talk.ready()
            if len(talk.questions()) == 2:
                break
            assert talk.text() == "what is second here"
            talk.page.press("#box textarea", "Enter")
        talk.wait_idle()
        assert [q.strip() for q in talk.questions()] == [
            "what is first here",
            "what is second here",
        ]
    finally:
        talk.problems.clear()  # the lost connection itself
        server.kill()
