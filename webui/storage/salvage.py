"""What can be read of a damaged file goes to a new one; the damaged one is kept aside, whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webui.storage import modes
from webui.storage.aside import aside_folder, note_row
from webui.storage.database import connect, prepare, tables_of, version_of

TABLES = ("chats", "turns", "pictures", "picture_owners", "damaged")
_GIVE_UP = 20_000  # rows in a row that cannot be read: behind the last one there are no others
_UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter of SQLite's own words
_AT_ONCE = 1000  # rows


def salvage(path: Path) -> str:
    """Put a new file in the place of a damaged one, and say in words what was saved.

    Raises:
        sqlite3.DatabaseError: not even the list of tables can be read; nothing has been touched.
    """
    fresh = path.with_name(path.name + ".salvaged")
    copy = path.with_name(path.name + ".damaged")
    _remove(fresh)
    try:
        for ending in ("", "-wal"):
            if (part := path.with_name(path.name + ending)).exists():
                shutil.copyfile(part, copy.with_name(copy.name + ending))
        counts = _read_over(copy, fresh)
    except BaseException:
        _remove(fresh)
        raise
    finally:
        _remove(copy)
    kept = aside_folder(path.parent)
    shutil.copy2(path, kept / path.name)
    for ending in ("-wal", "-shm"):  # before the new file comes: it would be read into that
        log = path.with_name(path.name + ending)
        if log.exists():
            os.replace(log, kept / log.name)
    os.replace(fresh, path)
    modes.tighten(path.parent)
    return (
        f"{counts.get('chats', 0)} chats with {counts.get('turns', 0)} turns were read into a new "
        f"file; the damaged one is kept in {kept}."
    )


def _read_over(damaged: Path, fresh: Path) -> dict[str, int]:
    """Copy what can be read; table → rows. The damaged file is written to."""
    source = sqlite3.connect(damaged, timeout=10.0)
    try:
        prepare(source)
        _restore_tables(source)
        tables = _tables(source)
        target = connect(fresh)
        try:
            counts = {table: _copy(source, target, table) for table in TABLES if table in tables}
            target.execute("PRAGMA journal_mode = DELETE")  # one file, to be moved in one step
        finally:
            target.close()
    finally:
        source.close()
    return counts


def _restore_tables(source: sqlite3.Connection) -> None:
    """Where the list of tables can be read, what it says about ours is put right."""
    # Also opens a file that was cut off, or with words in that list that make no sense.
    source.execute("PRAGMA writable_schema = ON")
    for table, (sql, _) in tables_of(version_of(source)).items():
        source.execute(
            "UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ? AND sql != ?",
            (sql, table, sql),
        )
    source.execute("PRAGMA writable_schema = RESET")
    source.execute("PRAGMA writable_schema = ON")


def _tables(source: sqlite3.Connection) -> set[str]:
    try:
        found = {str(row[0]) for row in source.execute("SELECT name FROM sqlite_master")}
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("its list of tables cannot be read") from error
    if not {"chats", "turns"} <= found:
        raise sqlite3.DatabaseError("it belongs to another program")
    return found


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    """Every row that can be read; one that the new table refuses is noted as damaged."""
    names = [str(row[1]) for row in target.execute(f"PRAGMA table_info({table})")]
    try:
        there = {str(row[1]) for row in source.execute(f"PRAGMA table_info({table})")}
    except _UNREADABLE:
        return 0
    columns = [name for name in names if name in there]
    into = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    count = 0
    target.execute("PRAGMA foreign_keys = OFF")  # what a row belongs to may be lost
    target.execute("BEGIN IMMEDIATE")
    for row in readable_rows(source, table, columns):
        try:
            target.execute(into, tuple(row)[:-1])
            count += 1
        except sqlite3.IntegrityError as error:
            note_row(target, table, f"not taken over: {error}", dict(row))
    target.execute("COMMIT")
    return count


def readable_rows(
    source: sqlite3.Connection, table: str, columns: list[str]
) -> Iterator[sqlite3.Row]:
    """The rows of a table in order, without those on pages that cannot be read.

    Ranges of row numbers are halved until each is read whole, or is one row that cannot be.
    """
    query = (
        f"SELECT {', '.join(columns)}, rowid AS row_number FROM {table} NOT INDEXED"
        f" WHERE rowid BETWEEN ? AND ? ORDER BY rowid LIMIT {_AT_ONCE}"
    )
    ranges = [(1, _last(source, table))]
    if (least := _edge(source, table, "min")) is not None and least < 1:
        ranges.append((least, 0))
    failed = 0
    while ranges and failed < _GIVE_UP:
        low, high = ranges.pop()
        rows = _read(source, query, low, high)
        if rows is not None:
            failed = 0 if rows else failed
            yield from rows
            if len(rows) == _AT_ONCE:
                ranges.append((rows[-1]["row_number"] + 1, high))
        elif low == high:
            failed += 1
        else:
            middle = (low + high) // 2
            ranges += [(middle + 1, high), (low, middle)]


def _read(source: sqlite3.Connection, query: str, low: int, high: int) -> list[Any] | None:
    try:
        return source.execute(query, (low, high)).fetchall()
    except _UNREADABLE:
        return None


def _last(source: sqlite3.Connection, table: str) -> int:
    """At least the last row's number; where the end cannot be read, as far as rows could be."""
    if (last := _edge(source, table, "max")) is not None:
        return max(last, 0)
    try:
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        if row is not None:
            return int(row[0])
    except (*_UNREADABLE, ValueError):
        pass
    return 2**32


def _edge(source: sqlite3.Connection, table: str, which: str) -> int | None:
    """The first or last row's number, of the table or of one of its indexes; None unless readable."""
    try:
        names = [str(row[1]) for row in source.execute(f"PRAGMA index_list({table})")]
    except _UNREADABLE:
        names = []
    for by in ("NOT INDEXED", *(f'INDEXED BY "{name}"' for name in names)):
        try:
            found = source.execute(f"SELECT {which}(rowid) FROM {table} {by}").fetchone()[0]
        except _UNREADABLE:
            continue
        return int(found) if found is not None else 0
    return None


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
