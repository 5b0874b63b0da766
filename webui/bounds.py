"""How much one visitor may hold at once: every bound holds per owner, per address, and in all.

Without a login a visitor is a cookie, and whoever sends none gets a fresh one; behind a tunnel all
strangers come from one address. So no single count is enough: the owner's stops one browser, the
address's stops one machine that makes up owners, and of the total a part is kept for those who
have answers here already, whatever newcomers do.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from instructblip.errors import Busy

NEWCOMERS = 0.75  # of a total: what visitors who have no answer here yet may hold together


@dataclass(frozen=True, slots=True)
class Client:
    """Who a bound counts.

    ``address`` is an IPv4 address or an IPv6 network of 64 bits, and None where it is not known:
    behind a tunnel, or a proxy that the operator has not named. ``known``: has answers here.
    """

    owner: str
    address: str | None = None
    known: bool = False


class Hold:
    """What a client holds of a bound until :meth:`leave`."""

    def __init__(self, bound: Bound, client: Client, amount: float) -> None:
        self.client, self.amount = client, amount
        self._bound: Bound | None = bound

    def leave(self) -> None:
        """Give it back; any number of times, from any thread."""
        bound, self._bound = self._bound, None
        if bound is not None:
            bound._leave(self.client, self.amount)


class Bound:
    """An amount (a count, or bytes) that clients hold at once.

    Args:
        name: of the messages: ``error_busy_NAME`` for the client's own, ``error_busy_NAME_all``.
        owner: what one owner may hold.
        address: what one address may hold, where it is known.
        total: what all may hold together.
    """

    def __init__(self, name: str, *, owner: float, address: float, total: float) -> None:
        self.name = name
        self._own, self._all = f"busy_{name}", f"busy_{name}_all"  # codes
        self.owner, self.address, self.total = owner, address, total
        self._lock = threading.Lock()
        self._owners: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._newcomers = 0.0
        self.held = 0.0

    def enter(self, client: Client, amount: float = 1) -> Hold:
        """Count the amount as held.

        Raises:
            Busy: ``busy_NAME`` (the owner or the address has too much), ``busy_NAME_all``.
        """
        with self._lock:
            self._check(client, amount)
            self._owners[client.owner] += amount  # type: ignore[assignment]
            if client.address is not None:
                self._addresses[client.address] += amount  # type: ignore[assignment]
            if not client.known:
                self._newcomers += amount
            self.held += amount
        return Hold(self, client, amount)

    def check(self, client: Client, amount: float = 1) -> None:
        """Raise as :meth:`enter` would now; nothing is held."""
        with self._lock:
            self._check(client, amount)

    @contextmanager
    def holding(self, client: Client, amount: float = 1) -> Iterator[None]:
        """Hold while the block runs."""
        hold = self.enter(client, amount)
        try:
            yield
        finally:
            hold.leave()

    def of(self, owner: str) -> float:
        """What an owner holds."""
        with self._lock:
            return self._owners.get(owner, 0)

    def _check(self, client: Client, amount: float) -> None:
        own = self._owners.get(client.owner, 0)
        there = self._addresses.get(client.address, 0) if client.address is not None else 0
        limit = self.owner if own + amount > self.owner else self.address
        if own + amount > self.owner or there + amount > self.address:
            raise Busy(
                f"Too much of this is on its way for you already ({self.name}: at most {limit:g}). "
                "Wait until some of it is done.",
                code=self._own,
                limit=f"{limit:g}",
            )
        crowded = not client.known and self._newcomers + amount > self.total * NEWCOMERS
        if crowded or self.held + amount > self.total:
            raise Busy(
                f"The server is full ({self.name}). Try again in a moment.",
                code=self._all,
            )

    def _leave(self, client: Client, amount: float) -> None:
        with self._lock:
            _less(self._owners, client.owner, amount)
            if client.address is not None:
                _less(self._addresses, client.address, amount)
            if not client.known:
                self._newcomers -= amount
            self.held -= amount


def _less(counts: Counter[str], key: str, amount: float) -> None:
    counts[key] -= amount  # type: ignore[assignment]
    if counts[key] <= 0:  # nothing is kept of who holds nothing
        del counts[key]


def network(address: str) -> str | None:
    """What stands for an address in a bound: IPv4 itself, of IPv6 the first 64 bits.

    None for this machine's own addresses: behind them may be a tunnel with everybody in it.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if found.is_loopback or found.is_unspecified:
        return None
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def client_of(request: Any) -> Client:
    """The client behind a request, Starlette's or Gradio's, as the server's guard found it."""
    inner = getattr(request, "request", None) or request
    client = getattr(inner, "scope", {}).get("instructblip.client")
    return client if isinstance(client, Client) else Client("")
