"""One browser and one server for the folder, one context (cookies of its own) a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driver import Server, Talk, chromium, slow_server
from playwright.sync_api import Browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a real Chromium."""
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
    # Last: while Playwright is at work its event loop counts as running in this thread.
    items.sort(key=lambda item: "tests/browser" in item.path.as_posix())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium of this machine."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the slow engine; modules that need one of their own override this."""
    running = slow_server(tmp_path_factory.mktemp("web") / "data").start()
    yield running
    running.kill()


@pytest.fixture
def tabs(browser: Browser, server: Server) -> Iterator[Callable[..., Talk]]:
    """Make tabs; ``tabs()`` shares one set of cookies, ``tabs(fresh=True)`` is another person.

    At the end no tab may have had a console error, an exception or a request to an outside host.
    """
    contexts: list[Any] = []
    opened: list[Talk] = []

    def make(fresh: bool = False, url: str | None = None, **options: Any) -> Talk:
        if fresh or not contexts or options:
            settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options}
            contexts.append(browser.new_context(**settings))
        opened.append(Talk(contexts[-1], url or server.url))
        return opened[-1]

    yield make
    problems = [problem for talk in opened for problem in talk.problems]
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def talk(tabs: Callable[..., Talk]) -> Talk:
    """One open page."""
    return tabs().open("?chat=new")
