"""Whose a tab is, and when what is kept of it goes.

A tab makes up its session hash, and Gradio shows a tab's stream to whoever names the hash, which
stands in query strings. Here it belongs to the owner who used it first. Gradio also keeps what
each tab was last shown, half a megabyte of it, in tables that it empties by its own lights; a tab
without a stream is forgotten here after a while, and one that comes back loads its chat again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from instructblip.errors import Busy, UnknownTurn
from webui.bounds import Bound, Client, Hold

log = logging.getLogger(__name__)

KEEP = 600.0  # seconds without a stream; a laptop's lid, a lost network
PER_OWNER, PER_ADDRESS = 64, 512
TOTAL = 1800  # below the 2,000 at which Gradio itself would throw streams out
SILENT = 200  # newcomers' tabs without a stream: a page opens its stream at once
STREAMS = 8  # open streams of one tab
EVENTS = 32  # queued events of one tab whose end it has not read
_SWEEP = 5.0


@dataclass
class Tab:
    """One tab of an owner; ``streams`` counts what it holds open, ``used`` is monotonic seconds."""

    owner: str
    known: bool
    hold: Hold
    streams: int = 0
    used: float = field(default_factory=time.monotonic)


class Tables(Protocol):
    """Who keeps something of tabs elsewhere."""

    def forget(self, session: str) -> None: ...

    def pending(self, session: str) -> int: ...

    def queued(self, session: str) -> bool: ...

    def sweep(self) -> None: ...


class Tabs:
    """Session hash → tab, bounded per owner, per address and in all.

    Args:
        tables: what else is kept of tabs, and goes with them.
        keep: seconds that a tab without a stream is kept.
    """

    def __init__(self, tables: Tables, keep: float | None = None) -> None:
        self._tables = tables
        self._keep = float(os.environ.get("INSTRUCTBLIP_KEEP_TABS", KEEP)) if keep is None else keep
        self._tabs: dict[str, Tab] = {}  # least recently used first
        self._bound = Bound("tabs", owner=PER_OWNER, address=PER_ADDRESS, total=TOTAL)

    def __len__(self) -> int:
        return len(self._tabs)

    def claim(self, client: Client, session: str) -> None:
        """Note that this client uses this tab; the first one to do so has it.

        Raises:
            UnknownTurn: it is somebody else's (``tab_foreign``).
            Busy: too many tabs are open (``busy_tabs``, ``busy_tabs_all``).
        """
        tab = self._tabs.pop(session, None)
        if tab is not None:
            self._tabs[session] = tab  # now the most recently used
            if tab.owner != client.owner:
                raise UnknownTurn("There is no such tab. Reload the page.", code="tab_foreign")
            tab.used, tab.known = time.monotonic(), client.known
            return
        self._make_room(client)
        hold = self._bound.enter(client)
        self._tabs[session] = Tab(client.owner, client.known, hold)

    def check_events(self, session: str) -> None:
        """Whether this tab may queue another event.

        Raises:
            Busy: too many wait to be read by it (``busy_tabs``).
        """
        if self._tables.pending(session) >= EVENTS:
            raise Busy(
                f"This tab has {EVENTS} events under way. Reload it.",
                code="busy_tabs",
                limit=EVENTS,
            )

    def check_stream(self, session: str, *, events: bool = False) -> None:
        """Whether this tab, which is claimed by now, may open another stream.

        Args:
            events: the stream is of events, of which there must be some.

        Raises:
            Busy: it holds too many (``busy_tabs``).
            UnknownTurn: it has no events (``tab_foreign``).
        """
        if events and not self._tables.queued(session):
            raise UnknownTurn("There is no such tab. Reload the page.", code="tab_foreign")
        if self._tabs[session].streams >= STREAMS:
            raise Busy(
                f"This tab has {STREAMS} connections open. Reload it.",
                code="busy_tabs",
                limit=STREAMS,
            )

    @contextmanager
    def streaming(self, session: str) -> Iterator[None]:
        """While a stream of this tab is open; raises as :meth:`check_stream` does."""
        self.check_stream(session)
        tab = self._tabs[session]
        tab.streams += 1
        try:
            yield
        finally:
            tab.streams -= 1
            tab.used = time.monotonic()

    def sweep(self) -> int:
        """Forget tabs that have had no stream, and no event, for longer than the time to keep them."""
        limit = time.monotonic() - self._keep
        gone = [s for s, tab in self._tabs.items() if not tab.streams and tab.used <= limit]
        for session in gone:
            self._drop(session)
        self._tables.sweep()
        return len(gone)

    async def watch(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(min(_SWEEP, max(self._keep / 2, 0.2)))
            try:
                self.sweep()
            except Exception:
                log.exception("tabs could not be swept")

    # --- inside --------------------------------------------------------------------------------

    def _make_room(self, client: Client) -> None:
        """Where a bound is reached, tabs without a stream go first: own ones, then newcomers'."""
        if self._bound.of(client.owner) >= PER_OWNER:
            self._drop_oldest(lambda tab: tab.owner == client.owner)
        silent = sum(not tab.known and not tab.streams for tab in self._tabs.values())
        full = False
        try:
            self._bound.check(client)
        except Busy:
            full = True
        if full or (not client.known and silent >= SILENT):
            self._drop_oldest(lambda tab: not tab.known)

    def _drop_oldest(self, which: Callable[[Tab], bool]) -> None:
        for session, tab in self._tabs.items():
            if not tab.streams and which(tab):
                self._drop(session)
                return

    def _drop(self, session: str) -> None:
        self._tabs.pop(session).hold.leave()
        self._tables.forget(session)


class GradioTables:
    """What Gradio keeps of tabs and events: its ``StateHolder``, and the tables of its ``Queue``."""

    def __init__(self, holder: Any, queue: Any) -> None:
        self._holder, self._queue = holder, queue

    def forget(self, session: str) -> None:
        """Let go of all that is kept of a tab."""
        with self._holder.lock:
            self._holder.session_data.pop(session, None)
            self._holder.time_last_used.pop(session, None)
        queue = self._queue
        for event_id in queue.pending_event_ids_session.pop(session, ()):
            event = queue.event_ids_to_events.get(event_id)
            if event is not None:
                event.alive = False  # it sends no more messages
        queue.pending_messages_per_session.pop(session, None)

    def pending(self, session: str) -> int:
        """How many events of a tab have not been told to their end."""
        return len(self._queue.pending_event_ids_session.get(session, ()))

    def queued(self, session: str) -> bool:
        """Whether a tab has a line of messages; Gradio breaks off a stream of one that has none."""
        return session in self._queue.pending_messages_per_session

    def sweep(self) -> None:
        """Let go of finished events; Gradio keeps a line of each for a page that is closed here."""
        queue = self._queue
        for event_id in list(queue.event_analytics):
            if event_id not in queue.event_ids_to_events:
                queue.event_analytics.pop(event_id, None)
