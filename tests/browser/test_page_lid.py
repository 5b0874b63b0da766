"""A laptop's lid or a lost network breaks all sockets of a page; the page goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import HERE, ROOT, Server, Talk, picture

COLLECT = """
  window.sockets = [];
  const Real = window.WebSocket;
  window.WebSocket = class extends Real {
    constructor(...given) { super(...given); window.sockets.push(this); }
  };
"""
BEATING = (
    "() => window.sockets.filter(s => s.readyState === 1 && s.url.includes('heartbeat')).length"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that forgets a tab after two seconds without a heartbeat or an event."""
    command = [sys.executable, str(HERE / "serve.py"), "--delay", "0.01"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "INSTRUCTBLIP_KEEP_TABS": "2"}
    running = Server(command, tmp_path / "data", environment=environment).start()
    yield running
    running.kill()


def test_a_broken_heartbeat_beats_again(tabs: Callable[..., Talk], server: Server) -> None:
    talk = tabs()
    talk.page.add_init_script(COLLECT)
    talk.open("?chat=new")
    talk.give(picture())
    chosen = talk.current_picture()
    talk.write("asked later")
    talk.page.wait_for_function(BEATING)
    talk.page.evaluate("window.sockets.forEach(socket => socket.close())")
    talk.page.wait_for_function(BEATING)
    talk.page.wait_for_timeout(6000)  # thrice what the server waits for a tab that is silent
    talk.page.press("#box textarea", "Enter")
    talk.page.wait_for_selector(".turns .turn:not(.live), .notice")
    assert talk.questions() == ["asked later"]
    assert talk.current_picture() == chosen
    assert talk.page.evaluate(BEATING) == 1
    talk.problems[:] = [p for p in talk.problems if "network error" not in p]
