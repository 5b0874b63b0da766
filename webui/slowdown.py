"""Guesses at passwords are slowed, and nobody is locked out by somebody else's.

A browser that has logged in before under this name and password (a signed cookie says so) has a
budget of its own: five failures are free, then it waits 1, 2, 4 … 30 s. Nothing else slows it.

All others are newcomers. They draw on budgets for the name, for all names and, where it is known,
for the address; a name from one address also has the growing delay. Where one of these is used up,
a browser gets a ticket (a cookie), waits ``PATIENCE``, and then draws on second budgets, which only
those reach who have waited. Are these used up too, the ticket gets an appointment within
``LONGEST_WAIT``, which nobody can take away.

So a flood that does not wait, with however many new cookies, delays a first-time visitor by 5 s;
strangers who wait as he does delay him by another minute at most while they are fewer than the
places of that minute (48 for a name); more of them share the places by chance. Against one account
newcomers try at most once a second over a long time. A right password gives back what it took.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from instructblip.errors import Busy

FREE, LONGEST_DELAY, FORGOTTEN = 5, 30.0, 900.0  # failures; seconds; seconds
PATIENCE = 5.0  # seconds from a ticket to the try with it
LONGEST_WAIT = 60.0  # seconds from there to the latest appointment
TICKET_AGE = 600.0
# (tries at once, tries a second) of a name, of an address, and of all newcomers together.
_NAME, _NAME_PATIENT = (10.0, 0.2), (20.0, 0.8)
_ADDRESS, _ADDRESS_PATIENT = (30.0, 0.5), (5.0, 0.1)
_ALL, _ALL_PATIENT = (30.0, 1.0), (60.0, 1.0)
_KEYS = 20_000  # entries of the table of delays; the oldest is forgotten
_UNKNOWN = 1024  # budgets that all names without an account share


@dataclass(frozen=True, slots=True)
class Try:
    """Somebody tries a password. ``device``: of a browser that has logged in before, else empty."""

    name: str
    has_account: bool
    address: str | None = None
    device: str = ""
    ticket: str = ""


class Slowed(Busy):
    """Too early. ``seconds`` says how long to wait, ``ticket`` what to bring then (or is empty)."""

    def __init__(self, seconds: float, ticket: str = "") -> None:
        self.seconds, self.ticket = max(1, math.ceil(seconds)), ticket
        super().__init__(
            f"Too many tries for now. Try again in {self.seconds} s.",
            code="login_slowed",
            seconds=self.seconds,
        )


class Budget:
    """Tries that come back at a rate; may be drawn in advance, for later."""

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self.burst, self.rate = burst, rate
        self._level, self._at = burst, now

    def wait(self, now: float) -> float:
        """Seconds until the next try that nobody has drawn."""
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        return max(0.0, (1 - self._level) / self.rate)

    def draw(self, tries: int = 1) -> None:
        """Take a try, or give it back (-1)."""
        self._level = min(self.burst, self._level - tries)


class Pair:
    """What newcomers have: a budget for any of them, and one for those who have waited."""

    def __init__(
        self, now: float, fresh: tuple[float, float], patient: tuple[float, float]
    ) -> None:
        self.fresh, self.patient = Budget(*fresh, now), Budget(*patient, now)


class Delays:
    """Failures of one browser, or of one address at one name, and the growing delay after them."""

    def __init__(self) -> None:
        self._table: OrderedDict[tuple[str, ...], tuple[int, float]] = OrderedDict()

    def wait(self, key: tuple[str, ...], now: float) -> float:
        """Seconds until the next try."""
        failures, last = self._table.get(key, (0, now))
        if failures < FREE or now - last > FORGOTTEN:
            return 0.0
        return max(0.0, last + min(LONGEST_DELAY, 2.0 ** min(failures - FREE, 10)) - now)

    def count(self, key: tuple[str, ...], now: float) -> None:
        """One failure more; a try counts as one until it turns out right."""
        failures, last = self._table.pop(key, (0, now))
        self._table[key] = (1 if now - last > FORGOTTEN else failures + 1, now)
        while len(self._table) > _KEYS:
            self._table.popitem(last=False)

    def take_back(self, key: tuple[str, ...]) -> None:
        """The last one was none."""
        failures, last = self._table.get(key, (0, 0.0))
        if failures:
            self._table[key] = (failures - 1, last)

    def clear(self, key: tuple[str, ...]) -> None:
        """Forget all failures."""
        self._table.pop(key, None)


class Attempt:
    """A try that may be made now; it counts as a failure unless one of these is called."""

    def __init__(
        self, owner: SlowDown, key: tuple[str, ...], budgets: list[Budget], ticket: str
    ) -> None:
        self._owner, self._key, self._budgets, self._ticket = owner, key, budgets, ticket

    def right(self) -> None:
        """The password was right."""
        self._owner._give_back(self._key, self._budgets)

    def unused(self) -> None:
        """The password was not looked at."""
        self._owner._give_back(self._key, self._budgets, unused=self._ticket)


class SlowDown:
    """All budgets and tickets, in memory: bounded, and fresh after a restart. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._key = secrets.token_bytes(32)  # of tickets: they end with this process
        self._delays = Delays()
        self._addresses: OrderedDict[str, Pair] = OrderedDict()
        self._names: dict[str, Pair] = {}
        self._all = Pair(clock(), _ALL, _ALL_PATIENT)
        self._due: dict[str, float] = {}  # ticket → appointment
        self._spent: dict[str, float] = {}  # ticket → when it ends anyway

    def enter(self, asked: Try) -> Attempt:
        """Let a try pass.

        Raises:
            Slowed: it may not be made yet.
        """
        with self._lock:
            now = self._clock()
            if asked.device:
                return self._known(asked, now)
            key = () if asked.address is None else (asked.address, _short(asked.name))
            budgets = self._of_newcomer(asked, self._delays.wait(key, now), now)
            return self._passed(asked, key, budgets, now)

    def _known(self, asked: Try, now: float) -> Attempt:
        key = ("device", asked.device)
        if wait := self._delays.wait(key, now):
            raise Slowed(wait)
        return self._passed(asked, key, [], now)

    def _passed(
        self, asked: Try, key: tuple[str, ...], budgets: list[Budget], now: float
    ) -> Attempt:
        for budget in budgets:
            budget.draw()
        if key:
            self._delays.count(key, now)
        return Attempt(self, key, budgets, asked.ticket)

    def _of_newcomer(self, asked: Try, delay: float, now: float) -> list[Budget]:
        """The budgets that this try draws on: those for all, or with a ticket the others."""
        pairs = self._pairs(asked, now)
        patient = [pair.patient for pair in pairs]
        issued = self._issued(asked.ticket, asked.name, now)
        due = self._due.get(asked.ticket) if issued is not None else None
        if due is not None and now >= due:
            self._spend(asked.ticket, now)
            for budget in patient:  # drawn when the appointment was made
                budget.draw(-1)
            return patient
        fresh = [pair.fresh for pair in pairs]
        dry = any(budget.wait(now) for budget in fresh)
        if not delay and not dry:
            return fresh
        if issued is None:
            wait = PATIENCE if dry else min(delay, PATIENCE)
            raise Slowed(wait, self._ticket(asked.name, now))
        if due is not None or now < issued + PATIENCE:
            raise Slowed((due or issued + PATIENCE) - now, asked.ticket)
        return self._waited(asked.ticket, patient, now)

    def _waited(self, ticket: str, budgets: list[Budget], now: float) -> list[Budget]:
        """A ticket that has waited: a try now, or an appointment."""
        wait = max(budget.wait(now) for budget in budgets)
        if wait > LONGEST_WAIT:  # too many wait as patiently
            raise Slowed(PATIENCE, ticket)
        if wait:
            for budget in budgets:
                budget.draw()
            self._forget(now)
            self._due[ticket] = now + wait
            raise Slowed(wait, ticket)
        self._spend(ticket, now)
        return budgets

    def _pairs(self, asked: Try, now: float) -> list[Pair]:
        # Names without an account share a number of budgets: made-up names fill no table.
        name = asked.name if asked.has_account else f"\0{hash(asked.name) % _UNKNOWN}"
        if name not in self._names:
            self._names[name] = Pair(now, _NAME, _NAME_PATIENT)
        found = [self._names[name], self._all]
        if asked.address is not None:
            if asked.address not in self._addresses:
                self._addresses[asked.address] = Pair(now, _ADDRESS, _ADDRESS_PATIENT)
            self._addresses.move_to_end(asked.address)
            while len(self._addresses) > _KEYS:
                self._addresses.popitem(last=False)
            found.append(self._addresses[asked.address])
        return found

    # --- tickets -----------------------------------------------------------------------------------

    def _ticket(self, name: str, now: float) -> str:
        text = f"{now:.3f}-{secrets.token_hex(8)}"
        return f"{text}-{self._sign(name, text)}"

    def _issued(self, ticket: str, name: str, now: float) -> float | None:
        """When a ticket for this name was given out; None: it is none, too old, or used."""
        text, _, signature = ticket.rpartition("-")
        if ticket in self._spent or not signature.isascii():
            return None
        if not hmac.compare_digest(signature, self._sign(name, text)):
            return None
        issued = float(text.partition("-")[0])
        return issued if now - issued <= TICKET_AGE else None

    def _sign(self, name: str, text: str) -> str:
        message = f"{_short(name)}-{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]

    def _spend(self, ticket: str, now: float) -> None:
        self._forget(now)
        self._due.pop(ticket, None)
        self._spent[ticket] = now + TICKET_AGE

    def _forget(self, now: float) -> None:
        """What has ended of tickets: at most one a second is drawn, so little is kept."""
        self._spent = {each: end for each, end in self._spent.items() if end >= now}
        self._due = {each: due for each, due in self._due.items() if due + TICKET_AGE >= now}

    def _give_back(
        self, key: tuple[str, ...], budgets: list[Budget], unused: str | None = None
    ) -> None:
        with self._lock:
            for budget in budgets:
                budget.draw(-1)
            if unused is None:
                self._delays.clear(key)
            else:
                self._delays.take_back(key)
                self._spent.pop(unused, None)


def _short(name: str) -> str:
    """A name of any length as a key."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
