"""A small reverse proxy of the careless kind: another Host, headers of its own, a prefix kept or stripped."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HOST = re.compile(rb"(?i)\r\nhost: [^\r]*")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")


class Proxy:
    """Hands requests on to the port ``to``, which may change.

    ``host``: what it says as Host; ``extra``: header lines it adds, ``{here}`` is its own address;
    ``prefix``: the path that the page has behind it, taken off where ``strip`` says so.
    """

    def __init__(
        self, to: int, host: str, extra: str = "", prefix: str = "", strip: bool = False
    ) -> None:
        self.to = to
        self._host, self._extra = host, extra.splitlines()
        self._prefix, self._strip = prefix, prefix.encode() if strip else b""
        self._port = 0

    @property
    def url(self) -> str:
        """Its address as a browser opens it."""
        return f"http://127.0.0.1:{self._port}{self._prefix}/"

    async def serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        """Serve until ``over``."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()

    async def _connection(self, down: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        answers, up = await asyncio.open_connection("127.0.0.1", self.to)
        task = asyncio.create_task(_copy(answers, back))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await down.readuntil(b"\r\n\r\n")
                up.write(self._changed(head))
                if length := _LENGTH.search(head):
                    up.write(await down.readexactly(int(length[1])))
                await up.drain()
                if b"upgrade: websocket" in head.lower():
                    await _copy(down, up)
        up.close()
        await task

    def _changed(self, head: bytes) -> bytes:
        method, target, rest = head.split(b" ", 2)
        if self._strip and target.startswith(self._strip):
            target = target[len(self._strip) :] or b"/"
        here = f"127.0.0.1:{self._port}"
        lines = [f"Host: {self._host}", *(line.format(here=here) for line in self._extra)]
        said = "".join(f"\r\n{line}" for line in lines).encode()
        return b" ".join((method, target, _HOST.sub(said, rest, count=1)))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    sink.close()


@contextmanager
def running(made: Proxy) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(made.serve(ready, over)))
    thread.start()
    ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
