"""Letter G: connections that are begun and not finished stop nobody else."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import websockets
import websockets.sync.client

from tests.browser.driver import Server
from tests.security.sockets import (
    GET,
    answered,
    ask,
    connect,
    few_descriptors,
    is_closed,
    seconds,
    status,
)
from tests.webui.visits import Visit
from webui.sessions import COOKIE, Signer, load_key

PATIENCE = 1.0
LOG = 100_000  # bytes that an attack may write
POST = b"POST /gradio_api/run/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UPLOAD = (
    b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n"
)
HALVES = {
    "nothing": b"",
    "a line": b"GET / HTTP/1.1\r\n",
    "a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: a",
    "a body": POST + b"Content-Length: 1000\r\n\r\n{",
    "no body": POST + b"Content-Length: 1000\r\n\r\n",
    "a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "an upload": UPLOAD + b"Content-Length: 90000\r\n\r\n--x\r\n",
    "a login": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nname=",
    "a wait": POST + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("connections")
    with few_descriptors(folder, ("--patience", str(PATIENCE))) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the usual times: only room is made, nothing runs out."""
    with few_descriptors(tmp_path_factory.mktemp("patient")) as running:
        yield running


@pytest.mark.parametrize("half", ["a head", "a body", "an upload"])
def test_2000_half_sent_requests_stop_nobody(patient: Server, half: str) -> None:
    ask(patient)
    written, before = len(patient.log()), seconds(patient)
    held: list[socket.socket] = []
    waiting: tuple[int, socket.socket] | None = None
    waits = []
    for number in range(2000):
        held.append(connect(patient, HALVES[half]))
        if len(held) > 300:
            held.pop(0).close()
        if waiting is None and number % 50 == 49:
            waiting = (number, connect(patient, GET))
        elif waiting is not None and answered(waiting[1]):
            assert status(waiting[1]) == 200
            waiting[1].close()
            waits.append(number - waiting[0])
            waiting = None
    assert ask(patient) == 200  # all of them are held now
    spent = seconds(patient) - before
    for each in held:
        each.close()
    assert len(waits) >= 2
    assert max(waits) <= 900, waits  # 512 stand before one in the kernel's line
    print(f"\n{half}: a bystander waited for {waits} others; {spent:.1f} s of CPU time")
    assert spent < 25, "seconds of CPU time"
    assert len(patient.log()) - written < LOG


@pytest.mark.parametrize("half", [*HALVES, "an answered request"])
def test_300_that_are_held_make_room_for_another(patient: Server, half: str) -> None:
    written = len(patient.log())
    held = [connect(patient, HALVES.get(half, GET)) for _ in range(300)]
    for _ in range(5):
        assert ask(patient) == 200
    for each in held:
        each.close()
    assert len(patient.log()) - written < LOG
    assert "Exception in ASGI" not in patient.log()


def test_while_all_is_held_the_server_rests(patient: Server) -> None:
    held = [connect(patient, HALVES["a head"]) for _ in range(300)]
    assert ask(patient) == 200
    before, began = seconds(patient), time.monotonic()
    time.sleep(2)
    assert seconds(patient) - before < (time.monotonic() - began) / 2
    assert "Traceback" not in patient.log()
    assert "out of system resource" not in patient.log()
    for each in held:
        each.close()


@pytest.mark.parametrize("half", HALVES)
def test_what_is_never_finished_ends(server: Server, half: str) -> None:
    with connect(server, HALVES[half]) as made:
        assert is_closed(made, 30 * PATIENCE)
    assert "Traceback" not in server.log()
    assert "Exception in ASGI" not in server.log()


@pytest.mark.parametrize("half", ["a head", "a body", "a chunk", "nothing"])
def test_drops_now_and_then_end_too(server: Server, half: str) -> None:
    drop = {"nothing": b"\r\n", "a chunk": b" "}.get(half, b"x")
    with connect(server, HALVES[half]) as made:
        for _ in range(150):
            try:
                made.sendall(drop)
            except ConnectionError:
                break
            time.sleep(PATIENCE / 5)
        else:
            pytest.fail("still open")
    assert ask(server) == 200


def test_a_slow_but_steady_upload_passes(server: Server) -> None:
    """100 kB a second for many times the patience, while others hold all that they can."""
    file = b"x" * 600_000
    start = b"--x\r\nContent-Disposition: form-data; name=files; filename=p.png\r\n\r\n"
    body = start + file + b"\r\n--x--\r\n"
    head = UPLOAD + b"Content-Length: %d\r\n\r\n" % len(body)
    held = []
    with connect(server, head) as made:
        for at in range(0, len(body), 10_000):
            made.sendall(body[at : at + 10_000])
            held += [connect(server, HALVES[half]) for half in ("a head", "a body", "nothing")] * 2
            time.sleep(0.1)
        assert status(made) != 0  # whatever it is taken for, it was read
    for each in held:
        each.close()


def test_the_end_does_not_wait_for_what_is_half_sent(tmp_path: Path) -> None:
    with few_descriptors(tmp_path) as server:
        held = [connect(server, half) for half in HALVES.values() for _ in range(5)]
        assert ask(server) == 200
        assert server.process is not None
        server.kill(signal.SIGTERM)
        assert server.process.returncode == 0
        assert "Traceback" not in server.log()
        assert "Cancel" not in server.log()
        for each in held:
            each.close()


def test_the_soft_limit_of_descriptors_goes_up_to_the_hard_one(tmp_path: Path) -> None:
    with few_descriptors(tmp_path, limit="ulimit -Sn 100; ulimit -Hn 400") as server:
        assert server.process is not None
        limit = psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert limit == (400, 400)
        held = [connect(server, HALVES["a head"]) for _ in range(600)]
        assert ask(server) == 200
        assert psutil.Process(server.process.pid).num_fds() <= 400 - 64
        for each in held:
            each.close()


def test_behind_a_tunnel_one_is_hostile_and_19_are_answered(patient: Server) -> None:
    """All come from one address; the hostile one has a new cookie each time."""
    signer = Signer(load_key(patient.data))
    held: list[Any] = []
    stopped = threading.Event()

    def attack() -> None:
        halves = itertools.cycle([*HALVES.values(), GET])
        to = f"ws://127.0.0.1:{patient.port}/streams?to=/gradio_api/heartbeat/"
        for number in itertools.count():
            if stopped.is_set() or number == 3000:
                return
            with contextlib.suppress(OSError, websockets.WebSocketException):
                if number % 10 == 0:
                    cookie = {"Cookie": f"{COOKIE}={signer.cookie(signer.new_visitor())}"}
                    address = f"{to}hostile{number}"
                    made = websockets.sync.client.connect(address, additional_headers=cookie)
                    held.append(made.socket)
                else:
                    held.append(connect(patient, next(halves)))
            if len(held) > 400:
                held.pop(0).close()
            time.sleep(0.002)

    def visit(number: int) -> str:
        with Visit(patient.url) as tab:
            tab.event(None, "load", '{"chat": "new"}')
            tab.event("scene", "click")
            tab.event("box", "submit", {"text": f"count {number}", "files": []})
            return tab.follow()

    hostile = threading.Thread(target=attack)
    hostile.start()
    try:
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(visit, range(1, 20)))
    finally:
        stopped.set()
        hostile.join()
        for each in held:
            each.close()
    assert all(answers), answers
    assert len(patient.log()) < 10 * LOG
