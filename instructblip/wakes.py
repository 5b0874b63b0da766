"""Waking readers in event loops from another thread, once for all that it has for them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

_held = threading.local()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What this thread wakes inside is woken at the end, with one call for each loop.

    A call for each would hand the interpreter to the loop, and wait for it back, as many times.
    """
    due: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
    _held.due = due
    try:
        yield
    finally:
        del _held.due
        for loop, events in due.items():
            _call(loop, _set, events)


def wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of a loop, from any thread; of a closed loop, whose reader is gone, never."""
    due = getattr(_held, "due", None)
    if due is None:
        _call(loop, _set, [event])
    else:
        due.setdefault(loop, []).append(event)


def _set(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()


def _call(
    loop: asyncio.AbstractEventLoop,
    work: Callable[[list[asyncio.Event]], None],
    events: list[asyncio.Event],
) -> None:
    with contextlib.suppress(RuntimeError):  # closed
        loop.call_soon_threadsafe(work, events)
