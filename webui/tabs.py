"""Forgets the state of tabs that were closed.

Gradio keeps what each tab was last shown, half a megabyte of it, until ten thousand tabs have been
there. A tab whose connection has ended is forgotten here after a while; one that comes back later
is told to load its chat again.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from typing import Any

KEEP = 600.0  # seconds; a laptop's lid, a lost network
_SWEEP = 5.0


class ClosedTabs:
    """Watches Gradio's ``StateHolder``."""

    def __init__(self, holder: Any, keep: float | None = None) -> None:
        self._holder = holder
        self._keep = float(os.environ.get("INSTRUCTBLIP_KEEP_TABS", KEEP)) if keep is None else keep

    def sweep(self) -> int:
        """Forget what has been closed, and unused, for longer than the time to keep it."""
        now, forgotten = datetime.datetime.now(), 0
        for key, state in list(self._holder.session_data.items()):
            used = self._holder.time_last_used.get(key, now)
            if state.is_closed and (now - used).total_seconds() >= self._keep:
                with self._holder.lock:
                    self._holder.session_data.pop(key, None)
                    self._holder.time_last_used.pop(key, None)
                forgotten += 1
        return forgotten

    async def watch(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(min(_SWEEP, max(self._keep / 2, 0.2)))
            self.sweep()
