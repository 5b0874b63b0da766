"""Waking readers in event loops from another thread, once for all that it has for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)
_held = threading.local()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What this thread wakes inside is woken at the end, with one call for each loop.

    A call for each would hand the interpreter to the loop, and wait for it back, as many times.
    """
    if getattr(_held, "due", None) is not None:  # the outer one wakes them all
        yield
        return
    due: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
    _held.due = due
    try:
        yield
    finally:
        _held.due = None
        for loop, events in due.items():
            _call(loop, _set, events)


def wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of a loop, from any thread, without ever raising: a reader may be gone."""
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
    try:
        loop.call_soon_threadsafe(work, events)
    except RuntimeError:  # closed
        pass
    except Exception:  # its readers are lost, those of other loops are not
        log.exception("the readers of an event loop could not be woken")
