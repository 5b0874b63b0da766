"""The answer to one request as it comes: written by the engine's thread, read by any thread or loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

from instructblip.engine.base import Delta
from instructblip.wakes import wake

log = logging.getLogger(__name__)


class LocalStream:
    """A buffer of Deltas with one reader, synchronous or asynchronous."""

    def __init__(self, request_id: str, on_cancel: Callable[[], None] = lambda: None) -> None:
        self.request_id = request_id
        self.cancelled = threading.Event()
        self.ended = False  # the last Delta was put
        self._on_cancel = on_cancel
        self._deltas: deque[Delta] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Ask the engine to stop within one unit of work."""
        if not self.cancelled.is_set():
            self.cancelled.set()
            self._on_cancel()

    def put(self, delta: Delta) -> None:
        """Called by the engine. Nothing comes after a last Delta; a reader's fault is the reader's."""
        with self._changed:
            if self.ended:
                return
            self.ended = delta.finish is not None
            self._deltas.append(delta)
            self._changed.notify_all()
            waking = self._wake
        if waking is not None:
            try:
                waking()
            except Exception:
                log.exception("request %s: its reader could not be woken", self.request_id)

    def __iter__(self) -> Iterator[Delta]:
        while True:
            with self._changed:
                while not self._deltas:
                    if self.ended:
                        return
                    self._changed.wait()
                delta = self._deltas.popleft()
            yield delta
            if delta.finish is not None:
                return

    async def __aiter__(self) -> AsyncIterator[Delta]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            self._wake = partial(wake, loop, arrived)
        while True:
            with self._changed:
                arrived.clear()
                batch, ended = list(self._deltas), self.ended
                self._deltas.clear()
            for delta in batch:
                yield delta
                if delta.finish is not None:
                    return
            if ended:
                return
            if not batch:
                await arrived.wait()
