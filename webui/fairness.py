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
