"""uvicorn's server with a listener of ours: it lets nobody in for whom there is no room.

asyncio's own takes every connection that waits, and once the descriptors are used up tries again
for ever, with a traceback each time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from functools import partial
from typing import Any

import uvicorn

from webui.asgi.connections import HttpConnection
from webui.asgi.lines import RESERVE, Lines

_BACKLOG = 512  # connections that wait in the kernel
_BATCH = 8  # taken at once; more would push out newcomers before they are read …
_MOST = 128  # … but where there is room: who waits behind others waits for whole turns of the loop
_PAUSE = 0.25  # seconds
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BoundedServer(uvicorn.Server):
    """A server that takes connections only as :class:`Lines` has room.

    Args:
        config: made with ``http=connection_of(lines)``.
    """

    def __init__(self, config: uvicorn.Config, lines: Lines) -> None:
        super().__init__(config)
        self._lines = lines
        self._arriving: set[asyncio.Task[None]] = set()
        self._work: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then listen on the given sockets."""
        await super().startup(sockets=[])
        self._work = [asyncio.create_task(self._listen(each)) for each in sockets or []]
        self._work.append(asyncio.create_task(self._lines.watch()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, then end as uvicorn does."""
        *listening, watching = self._work
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        await super().shutdown(sockets)
        watching.cancel()

    async def _listen(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        while True:
            try:
                first = await loop.sock_accept(listening)
            except OSError as error:  # else it went away while it waited
                if error.errno in _USED_UP:
                    self._lines.starved()
                    await asyncio.sleep(_PAUSE)
                continue
            for newcomer, peer in [first, *_others(listening, self._batch() - 1)]:
                await self._let_in(newcomer, str(peer[0]), listening)
            await asyncio.sleep(0)

    def _batch(self) -> int:
        """How many may be taken at once."""
        room = self._lines.limits.connections - len(self._lines) - len(self._arriving)
        return max(_BATCH, min(room // 4, _MOST))

    async def _let_in(self, newcomer: socket.socket, peer: str, listening: socket.socket) -> None:
        if not self._lines.welcome(peer):
            newcomer.close()
            return
        while self._lines.full(len(self._arriving)) or self._used_up(listening):
            if self._lines.make_room():
                await asyncio.sleep(0)  # its descriptor is free at the loop's next turn
            else:
                await self._lines.change(_PAUSE)
        task = asyncio.create_task(self._connect(newcomer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _connect(self, newcomer: socket.socket) -> None:
        protocol = partial(
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )  # type: ignore[call-arg]
        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, newcomer)
        except OSError:  # it went away meanwhile
            newcomer.close()

    def _used_up(self, listening: socket.socket) -> bool:
        """Whether the lowest free descriptor is among those that are left to others."""
        try:
            free = os.dup(listening.fileno())
        except OSError:
            return True
        os.close(free)
        return free >= self._lines.limits.descriptors - RESERVE


def _others(listening: socket.socket, most: int) -> list[tuple[socket.socket, Any]]:
    """More that wait already."""
    found: list[tuple[socket.socket, Any]] = []
    while len(found) < most:
        try:
            newcomer, peer = listening.accept()
        except OSError:  # nobody waits; anything else comes up again at the next turn
            break
        newcomer.setblocking(False)
        found.append((newcomer, peer))
    return found


def connection_of(lines: Lines) -> Any:
    """What uvicorn's ``http=`` takes."""
    return partial(HttpConnection, lines)
