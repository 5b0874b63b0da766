"""``/healthz`` in this process: what it says of the engine and of the store, and how often it looks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from slow_engine import SlowEngine

from instructblip.engine.base import Health
from webui import health as health_module
from webui.health import HealthReport
from webui.store import Store


def tell(report: HealthReport, times: int = 1) -> tuple[int, dict[str, Any]]:
    async def ask() -> tuple[int, dict[str, Any]]:
        said = [await report.tell() for _ in range(times)]
        return said[-1]

    return asyncio.run(ask())


def test_all_is_well(store: Store, engine: SlowEngine) -> None:
    status, body = tell(HealthReport(engine, store))
    assert status == 200
    assert body == {"ok": True, "model": "Slow test engine", "waiting": 0, "running": 0}


def test_an_engine_that_does_not_step(
    store: Store, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = HealthReport(engine, store)
    monkeypatch.setattr(engine, "health", lambda: Health(False, 130.0, "It hangs. Restart it."))
    assert tell(report)[0] == 503
    assert tell(report)[1]["engine"] == "It hangs. Restart it."
    monkeypatch.setattr(engine, "health", lambda: 1 / 0)
    monkeypatch.setattr(engine, "statistics", lambda: 1 / 0)
    status, body = tell(report)
    assert (status, body["ok"], body["store"]) == (503, False, "ok")
    assert "ZeroDivisionError" in body["engine"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/srv/data"), "The disk is full."),
        (PermissionError(13, "Permission denied", "/srv/data"), "cannot be written"),
        (ValueError("/srv/data"), "ValueError"),
    ],
)
def test_a_store_that_takes_nothing(
    store: Store, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr(health_module, "PROBE_EVERY", 0.0)
    report = HealthReport(engine, store)

    def fail() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "probe", fail)
        status, body = tell(report)
    assert (status, body["ok"], body["engine"]) == (503, False, "ok")
    assert words in body["store"]
    assert "/srv" not in str(body)
    assert tell(report)[0] == 200


def test_the_store_is_tried_now_and_then_only(
    store: Store, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[None] = []
    monkeypatch.setattr(store, "probe", lambda: tried.append(None))
    monkeypatch.setattr(health_module, "PROBE_EVERY", 3600.0)
    report = HealthReport(engine, store)
    tell(report, 50)
    assert len(tried) == 1


def test_a_store_that_hangs_takes_one_thread_and_is_said(
    store: Store, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, tried = threading.Event(), []

    def hang() -> None:
        tried.append(threading.current_thread())
        go.wait(60)

    monkeypatch.setattr(store, "probe", hang)
    monkeypatch.setattr(health_module, "PROBE_EVERY", 0.0)
    monkeypatch.setattr(health_module, "PROBE_WAIT", 0.02)
    monkeypatch.setattr(health_module, "PROBE_LIMIT", 0.05)
    report = HealthReport(engine, store)
    status, body = tell(report, 9)
    assert (status, body["store"]) == (503, "The store does not answer.")
    assert len(tried) == 1
    go.set()
    tried[0].join(60)
    monkeypatch.setattr(store, "probe", lambda: None)
    assert tell(report)[0] == 200
