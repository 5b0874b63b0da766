"""Letter G: connections that are begun and not finished stop nobody else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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

PATIENCE = 1.0
LOG = 100_000  # bytes that an attack may write
POST = b"POST /gradio_api/run/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HALVES = {
    "nothing": b"",
    "a line": b"GET / HTTP/1.1\r\n",
    "a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: a",
    "a body": POST + b"Content-Length: 1000\r\n\r\n{",
    "no body": POST + b"Content-Length: 1000\r\n\r\n",
    "a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "an upload": b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n",
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


@pytest.mark.parametrize("half", HALVES)
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
