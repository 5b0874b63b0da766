"""Plain sockets to a server: what no browser would send, and how the server takes it."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.browser.driver import HERE, Server

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"


@contextmanager
def few_descriptors(
    folder: Path, flags: Sequence[str] = (), limit: str = "ulimit -n 256"
) -> Iterator[Server]:
    """The real server on a slow engine, with few descriptors."""
    start = ["sh", "-c", f'{limit}; exec "$0" "$@"', sys.executable, str(HERE / "serve.py")]
    server = Server([*start, *flags], folder / "data").start()
    try:
        yield server
    finally:
        server.kill()


def connect(server: Server, sent: bytes = b"", timeout: float = 20.0) -> socket.socket:
    """A connection on which this has been sent."""
    made = socket.create_connection(("127.0.0.1", server.port), timeout)
    with contextlib.suppress(ConnectionError):  # closed at once: reading tells
        made.sendall(sent)
    return made


def status(made: socket.socket) -> int:
    """The answer's status; 0: the server closed the connection without one."""
    try:
        line = made.recv(12)
        while line and len(line) < 12 and (more := made.recv(12 - len(line))):
            line += more
    except ConnectionError:
        return 0
    return int(line[9:12]) if line else 0


def answered(made: socket.socket) -> bool:
    """Whether something can be read now."""
    return bool(select.select([made], [], [], 0)[0])


def ask(server: Server, sent: bytes = GET) -> int:
    """The status that a request gets."""
    with connect(server, sent) as made:
        return status(made)


def is_closed(made: socket.socket, timeout: float) -> bool:
    """Whether the server closes within this time; what it says before is dropped."""
    made.settimeout(timeout)
    try:
        while made.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def seconds(server: Server) -> float:
    """CPU time that the server has taken."""
    assert server.process is not None
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


class Wire:
    """One visitor's requests, sent exactly as they are given, on one connection while it lasts."""

    def __init__(self, server: Server, cookie: str) -> None:
        self._server, self._cookie = server, cookie
        self._made: socket.socket | None = None

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def ask(self, method: str, target: str, extra: str = "") -> bytes:
        """The whole answer."""
        line = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{self._server.port}\r\n"
        sent = f"{line}Cookie: {self._cookie}\r\n{extra}\r\n".encode("utf-8", "surrogateescape")
        head, rest = self._answer(sent)
        if head.startswith(b"HTTP/1.1 101"):
            return head + rest
        size = _length(head) if method != "HEAD" else 0
        while len(rest) < size and self._made is not None and (more := self._made.recv(65536)):
            rest += more
        if b"connection: close" in head.lower() or b"content-length" not in head.lower():
            self._drop()
        return head + rest

    def socket(self, target: str) -> bytes:
        """The answer to a WebSocket's handshake, and the first of what comes over it."""
        extra = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        self._drop()
        answer = self.ask("GET", target, extra)
        while answer.startswith(b"HTTP/1.1 101") and self._made is not None:
            more = self._made.recv(65536)
            answer += more
            if not more or b"\x88" in more or b"event-stream" in more:  # closed, or as it should be
                break
        self._drop()
        return answer

    def _answer(self, sent: bytes) -> tuple[bytes, bytes]:
        for _ in range(2):  # the server may have closed the one that lasted
            if self._made is None:
                self._made = connect(self._server)
            with contextlib.suppress(ConnectionError):
                self._made.sendall(sent)
                said = b""
                while b"\r\n\r\n" not in said and (more := self._made.recv(65536)):
                    said += more
                if said:
                    head, _, rest = said.partition(b"\r\n\r\n")
                    return head + b"\r\n\r\n", rest
            self._drop()
        raise ConnectionError("closed without an answer")

    def _drop(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close()


def _length(head: bytes) -> int:
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)
