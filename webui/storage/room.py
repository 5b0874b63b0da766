"""How much is kept of whom: bounds per owner and in all, before the disk is full.

Whoever has no answer here yet may keep a tenth of an owner's share, and is refused first when space
runs short: a stranger with a new cookie for each request must not use up what others need.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from instructblip.errors import BadRequest, Busy, InstructBlipError
from webui.bounds import NEWCOMERS

MAX_CHATS = 10_000  # of an owner
MAX_TURNS = 2_000  # of a chat
NEWCOMER = 0.1  # of an owner's share: before the first answer
TURN = 512  # bytes that a turn takes beside its texts
BLOCK = 4096  # bytes that the smallest file takes
_FRESH = 30.0  # seconds for which a sum is taken as it was, with what came since
_REMEMBERED = 1000  # owners


@dataclass(frozen=True)
class Limits:
    """Bytes. ``total`` 0: what the disk has but ``reserve``."""

    owner: float = 500e6
    total: float = 0.0
    reserve: float = 200e6


class Room:
    """Counts what is kept. ``held`` gives an owner's bytes, and everybody's for None."""

    def __init__(self, folder: Path, limits: Limits, held: Callable[[str | None], int]) -> None:
        self._folder, self._limits, self._held = folder, limits, held
        self._sums: dict[str | None, tuple[float, float]] = {}  # bytes, and when they were summed
        self._lock = threading.Lock()

    def check_picture(self, owner: str, size: int, known: bool) -> None:
        """Whether a picture of ``size`` bytes may be kept; counts it if so.

        Raises:
            BadRequest: ``storage_owner``, the owner has too much.
            Busy: ``storage_all``, all together have.
        """
        limits, size = self._limits, max(size, BLOCK)
        if self._sum(owner) + size > limits.owner * (1 if known else NEWCOMER):
            raise storage_owner(limits.owner * (1 if known else NEWCOMER))
        total = limits.total * (1 if known else NEWCOMERS)
        full = limits.total and self._sum(None) + size > total
        if full or self._free() - size < limits.reserve * (0.5 if known else 1):
            raise storage_all()
        self._add(owner, size)

    def check_turn(self, owner: str, size: int) -> None:
        """Whether a turn may be kept whose question has ``size`` bytes; counts it if so. Raises as above."""
        limits, size = self._limits, size + TURN
        if self._sum(owner) + size > limits.owner:
            raise storage_owner(limits.owner)
        if self._free() - size < limits.reserve / 8:
            raise storage_all()
        self._add(owner, size)

    def forget(self, owner: str) -> None:
        """Something of this owner's was removed: sum anew."""
        with self._lock:
            self._sums.pop(owner, None)
            self._sums.pop(None, None)

    def _sum(self, owner: str | None) -> float:
        with self._lock:
            held, at = self._sums.get(owner, (0.0, -_FRESH))
        if time.monotonic() - at < _FRESH:
            return held
        held = self._held(owner)
        with self._lock:
            if len(self._sums) >= _REMEMBERED:
                self._sums.clear()
            self._sums[owner] = (held, time.monotonic())
        return held

    def _add(self, owner: str, size: int) -> None:
        with self._lock:
            for key in (owner, None):
                if key in self._sums:
                    held, at = self._sums[key]
                    self._sums[key] = (held + size, at)

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free


def storage_owner(limit: float) -> InstructBlipError:
    """The error of an owner who keeps too much here."""
    return BadRequest(
        f"Your chats and pictures take up all of the {limit / 1e6:.0f} MB that one visitor may keep "
        "here. Delete chats that you no longer need.",
        code="storage_owner",
        limit=f"{limit / 1e6:.0f}",
    )


def storage_all() -> InstructBlipError:
    """The error when all together keep too much, or the disk is nearly full."""
    return Busy(
        "The server has no room left for more. Ask its operator, or try again later.",
        code="storage_all",
    )
