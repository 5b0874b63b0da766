"""The SQLite file of the chats: opening, version, migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from instructblip.errors import InstructBlipError

VERSION = 1

_FIRST = """
CREATE TABLE chats (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    title TEXT NOT NULL DEFAULT '',
    leaf_id TEXT,
    created REAL NOT NULL,
    updated REAL NOT NULL
);
CREATE INDEX chats_of_owner ON chats (owner, updated);
CREATE TABLE turns (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    chat_id TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent_id TEXT REFERENCES turns (id) ON DELETE CASCADE,
    question TEXT NOT NULL,
    picture_id TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '',
    answer_ids TEXT NOT NULL DEFAULT '[]',
    qformer_text TEXT NOT NULL DEFAULT '',
    tokenizer TEXT NOT NULL DEFAULT '',
    finish TEXT,
    error TEXT NOT NULL DEFAULT '',
    error_code TEXT NOT NULL DEFAULT '',
    error_values TEXT NOT NULL DEFAULT '{}',
    statistics TEXT NOT NULL DEFAULT '{}',
    parameters TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL
);
CREATE INDEX turns_of_chat ON turns (chat_id, parent_id);
CREATE INDEX turns_of_parent ON turns (parent_id);
CREATE INDEX turns_with_picture ON turns (picture_id);
CREATE TABLE pictures (
    id TEXT PRIMARY KEY,
    mime TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE picture_owners (
    picture_id TEXT NOT NULL REFERENCES pictures (id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    PRIMARY KEY (picture_id, owner)
);
"""

# MIGRATIONS[n] takes a file of version n to version n + 1.
MIGRATIONS: tuple[str, ...] = (_FIRST,)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, bring its schema up to :data:`VERSION`, and return the connection.

    Raises:
        InstructBlipError: ``store_unwritable``, ``store_damaged`` or ``store_newer``.
    """
    try:
        return _opened(path)
    except sqlite3.OperationalError as error:
        raise InstructBlipError(
            f"Cannot write the chats to {path}: {error}. Give the server a writable folder "
            "with --data FOLDER.",
            code="store_unwritable",
            path=str(path),
        ) from error
    except sqlite3.DatabaseError as error:
        raise InstructBlipError(
            f"{path} is not a database of chats, or is damaged ({error}). Move it away, or choose "
            "another folder with --data FOLDER.",
            code="store_damaged",
            path=str(path),
        ) from error


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0)
    try:
        connection.isolation_level = None  # transactions are opened by hand
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("folded", 1, _folded, deterministic=True)
        _migrate(connection, path)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers and a writer do not wait for each other. The file remembers it."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Only this statement does not wait for a lock: another server is doing the same.
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise


def _folded(text: str | None) -> str:
    """Lower case beyond ASCII, for search; SQLite's own LIKE folds ASCII only."""
    return (text or "").casefold()


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    found = _version(connection)
    if found > VERSION:
        raise InstructBlipError(
            f"{path} was written by a newer version of this program (schema {found}; this one "
            f"reads up to {VERSION}). Update the program, or choose another folder with "
            "--data FOLDER.",
            code="store_newer",
            path=str(path),
            found=found,
            known=VERSION,
        )
    for version in range(found, VERSION):
        in_transaction(connection, partial(_step, connection, version))


def _step(connection: sqlite3.Connection, version: int) -> None:
    if _version(connection) > version:  # another server was quicker
        return
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError("it belongs to another program")
    # executescript() would commit first; single statements stay inside the transaction.
    for statement in MIGRATIONS[version].split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version + 1}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def in_transaction(connection: sqlite3.Connection, work: Callable[[], None]) -> None:
    """Run ``work`` in one write transaction: all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        work()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
