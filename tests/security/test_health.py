"""An engine that dies or hangs and a disk that is full, in real servers: nobody waits for ever,
``/healthz`` says so, the page still answers, and what can come back does."""

from __future__ import annotations

import resource
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.driver import Server, slow_server
from tests.webui.visits import Visit

FAULTY = Path(__file__).parent / "faulty.py"
LIMIT = 120.0  # seconds until what has not come never will


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Callable[[float], Server]]:
    started: list[Server] = []

    def start(patience: float) -> Server:
        command = [sys.executable, str(FAULTY), str(patience)]
        started.append(Server(command, tmp_path / "data"))
        return started[0].start(120)

    yield start
    started[0].kill()


def health(server: Server) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{server.url}healthz", timeout=LIMIT)
    return answer.status_code, answer.json()


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def asked(tab: Visit, words: str) -> str:
    """Ask about a scene; what the page is told at once."""
    tab.event(None, "load", '{"chat": "new"}')
    tab.event("scene", "click")
    return tab.event("box", "submit", {"text": words, "files": []})


class Reader(threading.Thread):
    """A visitor who asks, and reads to the end of the answer."""

    def __init__(self, server: Server, words: str) -> None:
        super().__init__(daemon=True)
        self.asked, self.last = threading.Event(), ""
        self._server, self._words = server, words
        self.start()

    def run(self) -> None:
        with Visit(self._server.url) as tab:
            asked(tab, self._words)
            self.asked.set()
            self.last = tab.follow()

    def read(self) -> str:
        self.join(LIMIT)
        assert self.last, "the answer never ended"
        return self.last


def test_an_engine_that_dies_ends_what_waits_and_says_so(
    faulty: Callable[[float], Server],
) -> None:
    server = faulty(60.0)
    assert health(server)[0] == 200
    assert "failing again and again" in Reader(server, "die").read()
    status, body = health(server)
    assert (status, body["ok"], body["store"]) == (503, False, "ok")
    assert "Restart the server" in body["engine"]
    assert str(FAULTY.parent) not in str(body)
    with Visit(server.url) as tab:
        assert "ask the operator" in asked(tab, "What is on the left?").lower()
        assert "Traceback" not in tab.event(None, "load", '{"chat": ""}')


def test_an_engine_that_hangs_ends_what_waits_and_comes_back(
    faulty: Callable[[float], Server], tmp_path: Path
) -> None:
    server = faulty(0.5)
    readers = [Reader(server, words) for words in ("hang", "What is on the left?")]
    assert all(reader.asked.wait(LIMIT) for reader in readers)
    until(lambda: health(server)[0] == 503)
    assert "not finished a unit of work" in health(server)[1]["engine"]
    for reader in readers:
        assert "device does not answer" in reader.read()
    (tmp_path / "go").touch()
    until(lambda: health(server)[0] == 200)
    assert 'data-finish=\\"stop\\"' in Reader(server, "What is on the left?").read()


def limit_files(server: Server, size: int) -> None:
    """No file of the server may be longer: a disk without room, which any user may make."""
    assert server.process is not None
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def turns(data: Path) -> list[tuple[str, str | None]]:
    with closing(sqlite3.connect(data / "chats.sqlite3")) as database:
        return database.execute("SELECT answer, finish FROM turns ORDER BY seq").fetchall()


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit")
def test_a_full_disk_is_said_costs_no_answer_and_may_have_room_again(tmp_path: Path) -> None:
    server = slow_server(tmp_path / "data", delay=0.02).start(120)
    try:
        assert health(server)[0] == 200
        reader = Reader(server, "count 100")
        assert reader.asked.wait(LIMIT)
        limit_files(server, 0)
        said = reader.read()
        assert "98 99 100" in said
        assert "could not save this answer" in said or "not saved yet" in said
        until(lambda: health(server)[0] == 503)
        status, body = health(server)
        assert (status, body["engine"], body["store"]) == (503, "ok", "The disk is full.")
        with Visit(server.url) as tab:
            tab.event(None, "load", '{"chat": "new"}')
            assert "The disk is full" in tab.event("scene", "click")
        limit_files(server, resource.RLIM_INFINITY)
        until(lambda: health(server)[0] == 200)
        until(lambda: turns(tmp_path / "data")[0][1] == "stop")
        assert turns(tmp_path / "data")[0][0].endswith("98 99 100")
        assert "Turn 1: And now?" in Reader(server, "And now?").read()
    finally:
        server.kill()
