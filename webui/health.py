"""What ``/healthz`` says: whether the engine gets on with its work and the store can be written."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import Future
from typing import Any

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError
from webui.disk import as_disk_error
from webui.store import Store

PROBE_EVERY = 5.0  # seconds between two writes that only try whether the store takes them
PROBE_WAIT = 2.0  # seconds that a request waits for such a write
PROBE_LIMIT = 10.0  # seconds after which a write that has not ended is a fault
_SAID = {
    "store_full": "The disk is full.",
    "store_unwritable": "The data folder cannot be written.",
}


class HealthReport:
    """Asks the engine, and the store now and then. Lives on the server's event loop."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store
        self._probe: Future[str] | None = None
        self._began = -math.inf  # monotonic
        self._found = ""

    async def tell(self) -> tuple[int, dict[str, Any]]:
        """→ HTTP status and body, with neither paths nor secrets: anybody may ask."""
        engine, store = self._ask_engine(), await self._ask_store()
        ok = not engine and not store
        body: dict[str, Any] = {"ok": ok, "model": self._engine.card.name, **self._counts()}
        if not ok:
            body |= {"engine": engine or "ok", "store": store or "ok"}
        return 200 if ok else 503, body

    def _counts(self) -> dict[str, Any]:
        try:
            counts = self._engine.statistics()
        except Exception:  # the engine's own line says that it does not answer
            return {}
        return {key: counts[key] for key in ("waiting", "running") if key in counts}

    def _ask_engine(self) -> str:
        """What is wrong with the engine; empty if nothing is."""
        try:
            health = self._engine.health()
        except Exception as error:
            return f"The engine does not say how it is ({type(error).__name__})."
        return "" if health.stepping else health.reason or "The engine does not step."

    async def _ask_store(self) -> str:
        """What is wrong with the store; empty if nothing is. One write at a time, now and then."""
        if self._probe is None and time.monotonic() - self._began >= PROBE_EVERY:
            self._began = time.monotonic()
            self._probe = self._begin()
        probe = self._probe
        if probe is not None:
            await asyncio.wait({asyncio.wrap_future(probe)}, timeout=PROBE_WAIT)
            if probe.done():
                self._found, self._probe = probe.result(), None
            elif time.monotonic() - self._began > PROBE_LIMIT:
                return "The store does not answer."
        return self._found

    def _begin(self) -> Future[str]:
        """Probe in a thread of its own: a disk that hangs holds nothing else, nor the end."""
        found: Future[str] = Future()

        def work() -> None:
            found.set_result(self._try_store())

        threading.Thread(target=work, name="probe", daemon=True).start()
        return found

    def _try_store(self) -> str:
        try:
            self._store.probe()
        except Exception as error:
            typed = error if isinstance(error, InstructBlipError) else as_disk_error(error)
            code = typed.code if typed else ""
            return _SAID.get(code, f"The store does not take a write ({type(error).__name__}).")
        return ""
