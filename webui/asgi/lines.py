"""The connections that are open: what each is at, since when, and who makes room for newcomers.

Nothing here speaks HTTP: the protocols of ``connections.py`` say what their connections do, and
``listening.py`` asks for room before it lets one more in.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from webui.bounds import network

log = logging.getLogger(__name__)
RESERVE = 64  # descriptors that accepting leaves to files, pipes and the store
_BASE = 48  # descriptors of a server without visitors, rounded up
_MOST = 4096  # connections, wherever there is no lower limit
_PACE = 16_384  # bytes a second: who sends a body more slowly falls behind, and makes room first
_FLOOR = 1_024  # bytes a second: who stays below is cut off in the end
_QUIET = 10.0  # seconds between two lines of the log


class Phase(Enum):
    """What a connection is at."""

    IDLE = "kept alive, nothing asked"
    HEAD = "a request's head is not complete"
    BODY = "a request's body is not complete"
    BUSY = "the server's turn"
    SOCKET = "a WebSocket"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections, how long for what. Times are in seconds.

    Attributes:
        descriptors: that the process may have open, files included.
        connections: in all.
        address: of one address, where it is known.
        sockets: WebSockets among all connections.
        bodies: unfinished request bodies among all connections.
        head: until a request's head is complete.
        idle: between two requests; proxies reuse a connection within a minute, and whoever asks
            in the moment that it is closed gets no answer.
        gap: without a byte of a body.
        late: that a body may be behind ``_FLOOR`` bytes a second.
        unread: without progress while an answer waits to be read.
        drained: bytes of a body that are still read, and dropped, once it has been answered.
    """

    descriptors: int
    connections: int
    address: int
    sockets: int
    bodies: int
    head: float
    idle: float
    gap: float
    late: float
    unread: float
    drained: int

    @property
    def streams(self) -> int:
        """Heartbeats, and as many streams of events; the rest is for ordinary requests."""
        return max(self.connections * 3 // 8, 1)

    @staticmethod
    def of(
        descriptors: int, wanted: int = 0, patience: float = 10.0, drained: int = 33 * 2**20
    ) -> Limits:
        """Limits for a process that may have so many descriptors open.

        A connection may need a second descriptor for the file that it is sent.
        """
        free = max(descriptors - RESERVE - _BASE, 12)
        most = min(wanted, free) if wanted else min(free * 2 // 3, _MOST)
        return Limits(
            descriptors, most, max(most // 4, 1), max(most * 3 // 4, 1), max(most // 2, 1),
            patience, 6.5 * patience, 2 * patience, 3 * patience, 6 * patience, drained,
        )  # fmt: skip


class Line:
    """One connection.

    ``waiting`` says whether a body does not come because the server has not asked for it.
    """

    __slots__ = ("_mark", "address", "last", "phase", "received", "since", "stalled", "transport",
                 "waiting")  # fmt: skip

    def __init__(
        self, transport: asyncio.Transport, address: str | None, now: float,
        waiting: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.transport, self.address, self.waiting = transport, address, waiting
        self.phase = Phase.HEAD
        self.since = self.last = now
        self.received = 0
        self.stalled: float | None = None  # since when the peer has not read
        self._mark = 0

    def behind(self, now: float) -> float:
        """Seconds by which the peer keeps this connection for nothing; 0 and less: it does not."""
        if self.phase is Phase.SOCKET:
            return 0.0
        if self.phase is Phase.BUSY:
            return 0.0 if self.stalled is None else now - self.stalled
        if self.phase is Phase.BODY:
            return 0.0 if self.waiting() else now - self.since - self.received / _PACE
        return now - self.since

    def overdue(self, now: float, limits: Limits) -> bool:
        """Whether it is over."""
        if self.stalled is not None and now - self.stalled > limits.unread:
            return True
        if self.phase is Phase.BODY:
            late = now - self.since - self.received / _FLOOR
            return now - self.last > limits.gap or late > limits.late
        most = {Phase.IDLE: limits.idle, Phase.HEAD: limits.head}.get(self.phase)
        return most is not None and now - self.since > most

    def watch(self, now: float, passed: float) -> None:
        """See how far the peer has read; the time for a body runs only while one is wanted."""
        if self.phase is Phase.BODY and self.waiting():
            self.since += passed
            self.last = now
        size = self.transport.get_write_buffer_size()
        if size == 0:
            self.stalled = None
        elif self.stalled is None or size <= self._mark // 2:
            self.stalled, self._mark = now, size

    def read_on(self) -> None:
        """The peer has read most of what waited."""
        self.stalled = None


class Lines:
    """All connections of the server.

    Args:
        trusted: whether an address is a proxy's, with many people behind it.
        clock: seconds, rising.
    """

    def __init__(
        self, limits: Limits, trusted: Callable[[str], bool] = lambda address: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.limits = limits
        self._trusted, self._clock = trusted, clock
        self._lines: set[Line] = set()
        self._addresses: Counter[str] = Counter()
        self._phases: Counter[Phase] = Counter()
        self._slowest: dict[str | None, list[tuple[Line, float]]] = {}
        self._changed = asyncio.Event()
        self._unfinished: Counter[str] = Counter()
        self._said = self._swept = clock()

    def __len__(self) -> int:
        return len(self._lines)

    # --- what the protocols say ------------------------------------------------------------------

    def enter(
        self, transport: asyncio.Transport, peer: str, waiting: Callable[[], bool] = lambda: False
    ) -> Line:
        """A new connection, from this address."""
        line = Line(transport, self._counted(peer), self._clock(), waiting)
        self._lines.add(line)
        self._phases[line.phase] += 1
        if line.address is not None:
            self._addresses[line.address] += 1
        return line

    def leave(self, line: Line) -> None:
        """It is closed; may be said more than once."""
        if line not in self._lines:
            return
        self._lines.remove(line)
        self._phases[line.phase] -= 1
        if line.address is not None:
            self._addresses[line.address] -= 1
            if not self._addresses[line.address]:
                del self._addresses[line.address]
        self._changed.set()

    def receive(self, line: Line, size: int) -> None:
        """So many bytes have come."""
        line.last = self._clock()
        line.received += size

    def move(self, line: Line, phase: Phase) -> None:
        """It is at something else now."""
        if phase is line.phase or line not in self._lines:
            return
        self._phases[line.phase] -= 1
        self._phases[phase] += 1
        line.phase = phase
        line.since = line.last = self._clock()
        line.received = 0
        if phase is Phase.BODY and self._phases[phase] > self.limits.bodies:
            self._end_slowest_body(line)
        self._changed.set()

    def may_upgrade(self) -> bool:
        """Whether one more WebSocket fits."""
        fits = self._phases[Phase.SOCKET] < self.limits.sockets
        if not fits:
            self._unfinished["refused"] += 1
        return fits

    # --- room ------------------------------------------------------------------------------------

    def full(self, arriving: int = 0) -> bool:
        """Whether there is no room for one more beside those that are arriving."""
        return len(self._lines) + arriving >= self.limits.connections

    def welcome(self, peer: str) -> bool:
        """Whether one more of this address fits; if not, its own slowest makes room if it can."""
        address = self._counted(peer)
        if address is None or self._addresses[address] < self.limits.address:
            return True
        if self.make_room(address):
            return True
        self._unfinished["refused"] += 1
        return False

    def make_room(self, address: str | None = None) -> bool:
        """Close who has kept a connection for nothing the longest, of an address or of all."""
        now = self._clock()
        slowest = self._slowest.get(address) or self._find_slowest(address, now)
        while slowest:
            line, since = slowest.pop()
            if line in self._lines and line.since == since and line.behind(now) > 0:
                self._close(line, "made room")
                return True
        return False

    async def change(self, most: float) -> None:
        """Wait until something has changed, or so many seconds."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), most)
        except TimeoutError:
            return

    def _find_slowest(self, address: str | None, now: float) -> list[tuple[Line, float]]:
        """The slowest eighth, at most 64: looked for once for as many newcomers."""
        those = [
            (line.behind(now), id(line), line)
            for line in self._lines
            if address is None or line.address == address
        ]
        found = heapq.nlargest(max(min(64, len(those) // 8), 1), those)
        self._slowest[address] = [
            (line, line.since) for late, _, line in reversed(found) if late > 0
        ]
        return self._slowest[address]

    def _end_slowest_body(self, newest: Line) -> None:
        now = self._clock()
        bodies = [line for line in self._lines if line.phase is Phase.BODY and line is not newest]
        self._close(max(bodies, key=lambda line: line.behind(now)), "made room")

    # --- time ------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Close what is overdue, for ever."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.head / 4))
            self.sweep()

    def sweep(self) -> None:
        """Close what is overdue, and say in one line of the log what has been closed lately."""
        now = self._clock()
        passed, self._swept = now - self._swept, now
        self._slowest.clear()
        for line in list(self._lines):
            line.watch(now, passed)
            if line.overdue(now, self.limits):
                # An idle connection has nothing unfinished.
                self._close(line, "" if line.phase is Phase.IDLE else "took too long")
        if self._unfinished and now - self._said >= _QUIET:
            parts = ", ".join(f"{count} {what}" for what, count in self._unfinished.items())
            log.warning(
                "%d connections were closed unfinished (%s)", self._unfinished.total(), parts
            )
            self._unfinished.clear()
            self._said = now

    def drop(self, line: Line) -> None:
        """Close one that does what no browser does."""
        self._close(line, "broke the rules")

    def starved(self) -> None:
        """No descriptor was left: one more makes room."""
        if not self.make_room():
            self._unfinished["waited for a descriptor"] += 1

    def _close(self, line: Line, why: str) -> None:
        if why and not (why == "made room" and line.phase is Phase.IDLE):
            self._unfinished[why] += 1
        line.transport.abort()
        self.leave(line)

    def _counted(self, peer: str) -> str | None:
        return None if self._trusted(peer) else network(peer)
