"""The one connection of a store, behind a lock: reading, and writing in transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from instructblip.texts import storable
from webui.disk import transaction


class Connection:
    """Safe from any thread."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._lock = threading.RLock()
        self._db = db

    def _count(self, query: str, *values: str) -> int:
        row = self._one(query, values)
        return int(row[0]) if row is not None else 0

    @contextmanager
    def _write(self) -> Iterator[None]:
        with self._lock:
            if self._db.in_transaction:  # inside another method's transaction
                yield
                return
            with transaction(self._db):
                yield

    def _one(self, query: str, values: tuple[str, ...]) -> sqlite3.Row | None:
        values = tuple(storable(value) for value in values)
        with self._lock:
            row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
            return row

    def _all(self, query: str, values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()
