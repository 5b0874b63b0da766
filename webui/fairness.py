"""A waiting line in which nobody waits for the many things of one other."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FairLine(Generic[T]):
    """Items under keys of several levels, as (address, owner): each level takes turns.

    All items have equally many keys. Among those with equal keys the first comes first.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, FairLine[T]] = OrderedDict()
        self._items: deque[T] = deque()

    def __bool__(self) -> bool:
        return bool(self._groups or self._items)

    def add(self, item: T, keys: Sequence[Hashable]) -> None:
        """Let an item wait; a key that nobody waits under gets its turn after all others."""
        if not keys:
            self._items.append(item)
            return
        self._groups.setdefault(keys[0], FairLine()).add(item, keys[1:])

    def take(self) -> T | None:
        """The item whose turn it is, or None where none waits."""
        if self._items:
            return self._items.popleft()
        if not self._groups:
            return None
        key, group = next(iter(self._groups.items()))
        item = group.take()
        self._groups.move_to_end(key)
        self._forget(key)
        return item

    def remove(self, item: T, keys: Sequence[Hashable]) -> None:
        """Let an item wait no more; one that does not wait is fine."""
        if not keys:
            if item in self._items:
                self._items.remove(item)
        elif keys[0] in self._groups:
            self._groups[keys[0]].remove(item, keys[1:])
            self._forget(keys[0])

    def _forget(self, key: Hashable) -> None:
        if not self._groups[key]:
            del self._groups[key]


class SharedLine(Generic[T]):
    """Fair lines, one for each first key, between which time is shared instead of turns.

    So those whose items take long do not make those wait whose items are quick.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, FairLine[T]] = {}
        self._spent: dict[Hashable, float] = {}  # seconds, of those who wait comparable

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def waits(self, key: Hashable) -> bool:
        """Whether anything waits under this first key."""
        return bool(self._lines.get(key))

    def add(self, item: T, keys: Sequence[Hashable]) -> None:
        """Let an item wait. Who comes back has saved up a second at most."""
        line = self._lines.setdefault(keys[0], FairLine())
        if not line:
            others = [self._spent[key] for key, other in self._lines.items() if other]
            least = min(others) - 1.0 if others else 0.0
            self._spent[keys[0]] = max(self._spent.get(keys[0], 0.0), least)
        line.add(item, keys[1:])

    def take(self) -> T | None:
        """An item of those who have spent least, or None where none waits."""
        waiting = [key for key, line in self._lines.items() if line]
        if not waiting:
            return None
        return self._lines[min(waiting, key=self._spent.__getitem__)].take()

    def remove(self, item: T, keys: Sequence[Hashable]) -> None:
        """Let an item wait no more; one that does not wait is fine."""
        if keys[0] in self._lines:
            self._lines[keys[0]].remove(item, keys[1:])

    def charge(self, key: Hashable, seconds: float) -> None:
        """Note that an item under this first key has taken so long."""
        self._spent[key] = self._spent.get(key, 0.0) + seconds
