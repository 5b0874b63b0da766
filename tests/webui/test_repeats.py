"""What is said again and again is counted, not written."""

from __future__ import annotations

import logging

import pytest

from webui.asgi.repeats import Repeats


def test_the_same_is_written_a_few_times_and_then_counted() -> None:
    now, written = 0.0, []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(Repeats(lambda: now))
    logger = logging.Logger("strangers")
    logger.addHandler(handler)

    def failed(number: int) -> None:
        try:
            raise ValueError(number)
        except ValueError:
            logger.exception("request %d failed", number)

    for number in range(1000):
        failed(number)
    logger.warning("something else")
    assert written == [f"request {n} failed" for n in range(5)] + ["something else"]
    now = 11.0
    failed(1000)
    assert written[-1] == "request 1000 failed (and 995 more like it)"


def test_many_kinds_are_not_kept() -> None:
    repeats = Repeats(lambda: 0.0)
    for line in range(5000):
        record = logging.LogRecord("x", logging.ERROR, "file.py", line, "words", (), None)
        assert repeats.filter(record)
    assert len(repeats._seen) < 500


@pytest.mark.parametrize("error", [None, (None, None, None)])
def test_no_error_is_no_trouble(error: object) -> None:
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "w", (), error)  # type: ignore[arg-type]
    assert Repeats(lambda: 0.0).filter(record)


def test_what_is_counted_where_it_is_said_is_not_counted_again() -> None:
    repeats = Repeats(lambda: 0.0)
    record = logging.LogRecord("x", logging.WARNING, "f.py", 1, "w", (), None)
    record.counted = True
    assert all(repeats.filter(record) for _ in range(20))
