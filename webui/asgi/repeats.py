"""A log that strangers cannot fill: what is said again and again is counted, not written."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WINDOW = 10.0  # seconds
_TIMES = 5  # that the same may be written in them
_KINDS = 256  # kept in mind


class Repeats(logging.Filter):
    """Passes the same message five times in ten seconds; the next one tells how many followed.

    The same: written by the same line of a program, with an error raised at the same line.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[object, tuple[float, int]] = {}  # until when, how often

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it. Whoever counts repeats itself marks its records as ``counted``."""
        if getattr(record, "counted", False):
            return True
        now, kind = self._clock(), _kind(record)
        with self._lock:
            until, times = self._seen.pop(kind, (0.0, 0))
            held_back = 0
            if now >= until:
                until, times, held_back = now + _WINDOW, 0, max(times - _TIMES, 0)
            self._seen[kind] = (until, times + 1)
            if len(self._seen) > _KINDS:
                del self._seen[next(iter(self._seen))]
        if held_back:
            record.msg = f"{record.getMessage()} (and {held_back} more like it)"
            record.args = ()
        return times < _TIMES


def _kind(record: logging.LogRecord) -> object:
    error = record.exc_info[1] if record.exc_info else None
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else None
    return record.pathname, record.lineno, type(error), place


@contextmanager
def repeats_held_back() -> Iterator[None]:
    """Put the filter before everything that is written meanwhile, uvicorn's own included."""
    repeats = Repeats()
    handlers = (*logging.getLogger().handlers, *logging.getLogger("uvicorn").handlers)
    for handler in handlers:
        handler.addFilter(repeats)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(repeats)
