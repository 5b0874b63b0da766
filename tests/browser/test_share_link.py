"""A share link through a stand-in tunnel that forwards, and what is said when there is none."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import HERE, PATIENCE, Server, Talk, picture, slow_server


def wait_log(server: Server, pattern: str) -> re.Match[str]:
    """The first match in what the server wrote."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := re.search(pattern, server.log()):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {pattern!r} in:\n{server.log()}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with ``--share`` over the stand-in."""
    tunnel = f"{sys.executable} {HERE / 'tunnel.py'} {{port}}"
    data: Path = tmp_path_factory.mktemp("share") / "data"
    running = slow_server(data, flags=("--share", "--tunnel-command", tunnel)).start()
    yield running
    running.kill(signal.SIGTERM)


def enter(talk: Talk, password: str) -> None:
    """Fill in the login form."""
    talk.page.fill("input[name=name]", "guest")
    talk.page.fill("input[name=password]", password)
    talk.page.press("input[name=password]", "Enter")


def test_two_browsers_log_in_and_chat_through_the_tunnel(
    tabs: Callable[..., Talk], server: Server
) -> None:
    password = wait_log(server, r"Login for the share link: name guest, password (\S+)").group(1)
    address = wait_log(server, r"Share link: (\S+)").group(1) + "/"
    assert address.startswith("http://share.localhost:")
    first, second = tabs(url=address), tabs(fresh=True, url=address)
    first.page.goto(address)
    assert first.page.locator("#box").count() == 0
    enter(first, "wrong")
    first.page.wait_for_selector("[role=alert]")
    first.problems.clear()  # the browser notes the 401
    for talk, words in ((first, "what is red here"), (second, "what is green here")):
        talk.page.goto(address)
        enter(talk, password)
        talk.ready()
        talk.give(picture())
        assert words in talk.ask(words)
    # The same login, but each sees what is their own.
    second.menu()
    assert "green" in second.page.inner_text(".sidebar")
    assert "red" not in second.page.inner_text(".sidebar")
    shown = first.page.locator(".turns .thumb img").first
    assert shown.evaluate("async i => (await fetch(i.src)).status") == 200
    assert shown.evaluate("i => new URL(i.src).host") == address.split("/")[2]


def test_without_a_tunnel_the_page_goes_on(tabs: Callable[..., Talk], tmp_path: Path) -> None:
    flags = ("--share", "--auth", "ann:words", "--tunnel-command", "false {port}")
    server = slow_server(tmp_path / "data", flags=flags).start()
    try:
        wait_log(server, r"No share link: .*false")
        assert f"127.0.0.1:{server.port}" in server.log()
        for other in ("sha256", "--share-server", "ssh -N -R"):
            assert other in server.log()
        assert "password" not in server.log()  # a login was given, none is made up
        talk = tabs(url=server.url)
        talk.page.goto(server.url)
        talk.page.fill("input[name=name]", "ann")
        talk.page.fill("input[name=password]", "words")
        talk.page.press("input[name=password]", "Enter")
        talk.ready()
    finally:
        server.kill()
