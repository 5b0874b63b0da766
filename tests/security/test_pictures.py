"""Letter A: pictures that cost a lot, sent to a real server while others ask and send theirs."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.browser.driver import Server, slow_server
from tests.tiny_picture import picture
from tests.webui.hostile_pictures import flat_png, many_scans
from tests.webui.visits import Visit

ALLOWED = 60e6  # bytes that the server may grow by, whatever the pictures unpack to
HOSTILE = 5


class Tab(Visit):
    """A visit that brings pictures."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._http.timeout = 120

    def __enter__(self) -> Tab:
        super().__enter__()
        self.event(None, "load", '{"chat": "new"}')
        return self

    def give(self, data: bytes, name: str = "p.png") -> str:
        """Upload a file and choose it in the picture box; the picture's id, else what is said."""
        path = self._http.post("/gradio_api/upload", files={"files": (name, data)}).json()[0]
        call = self._calls[self._ids["picture"], "input"]
        values = [self._values.get(i) for i in call["inputs"]]
        values[0] = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": values, "fn_index": call["id"], "session_hash": self._session}
        answer = self._http.post("/gradio_api/run/predict", json=body).json()
        said = dict(zip(call["outputs"], answer["data"], strict=True))
        if "notice error" in (words := json.dumps(said)):
            return words
        return str((said[self._ids["picture"]] or {}).get("path", ""))

    def question(self) -> str:
        """Ask about the picture in the box and wait for the whole answer."""
        self.event("box", "submit", {"text": "count 3", "files": []})
        return self.follow()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = slow_server(tmp_path / "data", 0.01).start()
    yield running
    running.kill()


@pytest.fixture
def tab(server: Server) -> Iterator[Callable[[], Tab]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Tab(server.url))


@contextmanager
def senders(server: Server, count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that send at the same time; what is on its way at the end is not waited for."""
    with ThreadPoolExecutor(count) as pool:
        try:
            yield pool
        finally:
            server.kill()


def processes(server: Server) -> list[psutil.Process]:
    """The picture processes of a server."""
    assert server.process is not None
    return psutil.Process(server.process.pid).children()


def busy(server: Server, count: int = 2) -> list[psutil.Process]:
    """Wait until pictures are being read."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = [p for p in processes(server) if p.cpu_times().user > 0.3]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError("no picture is being read")


@pytest.mark.parametrize("cookies", ["one", "a new one for each"])
def test_slow_pictures_hold_up_neither_answers_nor_pictures(
    cookies: str, server: Server, tab: Callable[[], Tab]
) -> None:
    data = many_scans(2000, 4000)
    bystander = tab()
    assert len(bystander.give(picture())) == 32
    assert "3" in bystander.question()
    hostile = [tab()] * HOSTILE if cookies == "one" else [tab() for _ in range(HOSTILE)]
    with senders(server, HOSTILE) as pool:
        sent = [pool.submit(t.give, data, f"{n}.jpg") for n, t in enumerate(hostile)]
        busy(server)
        assert "3" in bystander.question()
        assert not any(future.done() for future in sent)
        assert len(bystander.give(picture((20, 20, 200)))) == 32
        assert "3" in bystander.question()
        assert len([future for future in sent if not future.done()]) >= 2


def test_twenty_behind_one_tunnel_of_whom_one_is_hostile(
    server: Server, tab: Callable[[], Tab]
) -> None:
    data = many_scans(2000, 4000)
    hostile, others = tab(), [tab() for _ in range(19)]
    with senders(server, HOSTILE + 19) as pool:
        sent = [pool.submit(hostile.give, data, f"{n}.jpg") for n in range(HOSTILE)]
        busy(server)
        read = [pool.submit(one.give, picture((0, 0, n))) for n, one in enumerate(others)]
        assert {len(future.result()) for future in read} == {32}
        assert len([future for future in sent if not future.done()]) >= 2


def test_more_than_a_few_of_one_visitor_are_refused_at_once(
    server: Server, tab: Callable[[], Tab]
) -> None:
    hostile, data = tab(), many_scans(2000, 4000)
    with senders(server, 12) as pool:
        sent: list[Future[str]] = [pool.submit(hostile.give, data, f"{n}.jpg") for n in range(12)]
        end = time.monotonic() + 60
        while sum(future.done() for future in sent) < 4 and time.monotonic() < end:
            time.sleep(0.05)
        refused = [future.result() for future in sent if future.done()]
    assert [said for said in refused if "8 pictures are on their way already" in said] == refused


def test_pictures_that_unpack_to_much_leave_the_server_small(
    server: Server, tab: Callable[[], Tab]
) -> None:
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    bombs = [flat_png(1, 64_000_000, 8), flat_png(8000, 8000, 8), flat_png(2000, 32_000)]
    tabs = [tab() for _ in bombs]
    assert len(tabs[0].give(picture())) == 32
    before = peak = process.memory_info().rss
    with senders(server, len(bombs)) as pool:
        sent = [pool.submit(one.give, data) for one, data in zip(tabs, bombs, strict=True)]
        while not all(future.done() for future in sent):
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.02)
    refused, *read = [future.result() for future in sent]
    assert "at most 32768 are taken on a side" in refused
    assert [len(shown) for shown in read] == [32, 32]
    assert peak - before < ALLOWED


def test_a_killed_reader_is_said_to_its_visitor_and_harms_nobody(
    server: Server, tab: Callable[[], Tab]
) -> None:
    with senders(server, 1) as pool:
        visitor = tab()
        sent = pool.submit(visitor.give, many_scans(2000, 20_000), "slow.jpg")
        busy(server, 1)[0].kill()
        assert "This picture could not be read (SIGKILL)" in sent.result()
        assert len(visitor.give(picture())) == 32


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(
    how: signal.Signals, server: Server, tab: Callable[[], Tab]
) -> None:
    with senders(server, 1) as pool:
        pool.submit(tab().give, many_scans(2000, 20_000), "slow.jpg")
        busy(server, 1)
        left = processes(server)
        server.kill(how)
        _, alive = psutil.wait_procs(left, 30)
        assert not alive
