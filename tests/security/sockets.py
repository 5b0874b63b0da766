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
