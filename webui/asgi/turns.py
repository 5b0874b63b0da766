"""Requests take turns at the server's one event loop, for which each needs some milliseconds.

Without that, all that is asked at once is answered late at once, however much of it one stranger
asks. So few requests are begun at a time, those of visitors who have answers here and newcomers'
in turn, but newcomers have no more than a share of the loop's time while others are about; below
that addresses take turns, and below that owners. A turn ends with the first byte of the answer, or
once it has taken so long that it must be waiting for something else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from webui.bounds import Bound, Client
from webui.fairness import FairLine

AT_ONCE = 8  # some wait for a thread; more would only keep all of them waiting
NEWCOMERS = 3  # of these, at most
LONGEST = 0.1  # seconds; a request that waits, for a picture to be read, needs no more of the loop
SHARE = 0.15  # of the loop's time: newcomers', while a visitor who is known is about
SAVED = 1.0  # seconds of the loop's time that newcomers may have saved up: many come at once
ABOUT = 10.0  # seconds since the last request of a known visitor


class Turn:
    """A request's turn. :meth:`end` as often as one likes."""

    def __init__(self, turns: Turns, known: bool, longest: float) -> None:
        self._turns: Turns | None = turns
        self._known = known
        self._timer = asyncio.get_running_loop().call_later(longest, self.end)

    def end(self) -> None:
        """Let the next one begin."""
        turns, self._turns = self._turns, None
        if turns is not None:
            self._timer.cancel()
            turns._end(self._known)


class Turns:
    """Who may begin next; on one event loop.

    Args:
        at_once, newcomers: requests that have a turn at a time; of them those of visitors without
            an answer here.
        longest: seconds after which a turn ends by itself.
        bound: how many requests, whose bodies are kept meanwhile, clients may have waiting.
        share, saved: of the loop's time, see :data:`SHARE` and :data:`SAVED`.
    """

    def __init__(
        self, at_once: int = AT_ONCE, newcomers: int = NEWCOMERS, longest: float = LONGEST,
        bound: Bound | None = None, share: float = SHARE, saved: float = SAVED,
    ) -> None:  # fmt: skip
        self._bound = bound or Bound("requests", owner=128, address=192, total=512)
        self._at_once, self._most, self._longest = at_once, newcomers, longest
        self._share, self._saved = share, saved
        self._lines = {known: FairLine[asyncio.Future[Turn]]() for known in (True, False)}
        self._running: Counter[bool] = Counter()
        self._next = True  # whether it is the turn of those who are known
        self._about = -ABOUT  # time.monotonic() of the last request of a known visitor
        self._from = -math.inf  # time.monotonic() at which newcomers have paid for what they had
        self._later: asyncio.TimerHandle | None = None

    async def begin(self, client: Client) -> Turn:
        """Wait for a turn.

        Raises:
            Busy: too many requests wait (``busy_requests``, ``busy_requests_all``).
        """
        future: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        line, keys = self._lines[client.known], (client.address, client.owner)
        hold = self._bound.enter(client)
        if client.known:
            self._about = time.monotonic()
        line.add(future, keys)
        self._go_on()
        try:
            return await future
        except asyncio.CancelledError:
            line.remove(future, keys)
            if future.done() and not future.cancelled():
                future.result().end()
            raise
        finally:
            hold.leave()

    def spend(self, client: Client, seconds: float) -> None:
        """Note how much of the loop's time a client has had."""
        if not client.known:
            earliest = time.monotonic() - self._saved / self._share
            self._from = max(self._from, earliest) + seconds / self._share

    def _end(self, known: bool) -> None:
        self._running[known] -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._running.total() < self._at_once:
            known = self._next if self._may(self._next) else not self._next
            if not self._may(known):
                return
            future = self._lines[known].take()
            self._next = not known
            if future is not None and not future.done():
                self._running[known] += 1
                future.set_result(Turn(self, known, self._longest))

    def _may(self, known: bool) -> bool:
        if known or not self._lines[False]:
            return bool(self._lines[known])
        return self._running[False] < self._most and self._have_paid()

    def _have_paid(self) -> bool:
        """Whether newcomers may have more of the loop's time; if not, they are asked again then."""
        wait = min(self._from, self._about + ABOUT) - time.monotonic()
        if wait > 0 and self._later is None:
            self._later = asyncio.get_running_loop().call_later(wait, self._paid)
        return wait <= 0

    def _paid(self) -> None:
        self._later = None
        self._go_on()


class Meter:
    """What one request costs of the loop's time; charged to its client once that is known."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._spent = turns, 0.0
        self._client: Client | None = None

    def charge(self, client: Client) -> None:
        """From now on, and for what was spent before."""
        self._client = client
        self.spend(0.0)

    def spend(self, seconds: float) -> None:
        """Count a step."""
        self._spent += seconds
        if self._client is not None:
            self._turns.spend(self._client, self._spent)
            self._spent = 0.0


class Timed:
    """Awaits a coroutine and tells how long each of its steps takes."""

    def __init__(self, work: Coroutine[Any, Any, None], spend: Callable[[float], None]) -> None:
        self._work, self._spend = work, spend

    def __await__(self) -> Generator[Any, Any, None]:
        thrown: BaseException | None = None
        while True:
            began = time.perf_counter()
            try:
                waits = self._work.send(None) if thrown is None else self._work.throw(thrown)
            except StopIteration:
                return
            finally:
                self._spend(time.perf_counter() - began)
            thrown = None
            try:
                yield waits
            except BaseException as error:  # a cancellation
                thrown = error
