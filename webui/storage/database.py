"""The SQLite file of the chats: what it is before it is touched, its connection, its migrations."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from weakref import WeakSet

from instructblip.errors import InstructBlipError
from webui import schema
from webui.storage import modes


class _Connection(sqlite3.Connection):
    """Knows which file it is of."""

    file: tuple[int, int] | None = None

    def close(self) -> None:
        self.file = None
        super().close()


_MAGIC = b"SQLite format 3\0"
_HEADER = 100  # bytes
_VERSION_AT = slice(60, 64)  # user_version, in the header
_FRACTIONS = bytes((64, 32, 32))  # fixed by the format, at 21
_IDS = re.compile(rb"\[(?:[0-9]{1,9}(?:,[0-9]{1,9})*)?\]")
_ROW_FAULTS = ("NULL value in", "TEXT value in", "NUMERIC value in")  # mended row by row
_QUICK_FROM = 256 * 2**20  # bytes; of larger files the indexes are not compared with their tables

# Closing any handle on a file drops all locks that this process has on it, SQLite's too: while a
# connection is open here, the file is opened by SQLite alone.
_opening = threading.RLock()
_open: WeakSet[_Connection] = WeakSet()


class Unsound(sqlite3.DatabaseError):
    """SQLite can open the file, but parts of it cannot be read."""


def check_file(path: Path) -> None:
    """Refuse a file that is not ours to write, before anything touches it. Absent is fine.

    Raises:
        InstructBlipError: ``store_newer`` (a newer program's), ``store_damaged`` (no database),
            ``store_unwritable`` (it cannot be read).
    """
    try:
        with _opening:
            if _file(path) in [connection.file for connection in _open]:
                return
            with path.open("rb") as file:
                header = file.read(_HEADER)
        logged = _version_in_log(path.with_name(path.name + "-wal"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unwritable(path, error) from error
    if header and not _is_database(header):
        raise damaged(path, "file is not a database")
    found = max(int.from_bytes(header[_VERSION_AT], "big", signed=True), logged)
    if found > schema.VERSION:
        raise InstructBlipError(
            f"{path} was written by a newer version of this program (schema {found}; this one "
            f"reads up to {schema.VERSION}). Update the program, or choose another folder with "
            "--data FOLDER.",
            code="store_newer",
            path=str(path),
            found=found,
            known=schema.VERSION,
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, check it whole, bring its schema up to date, and return the connection.

    Raises:
        Unsound: parts of the file cannot be read.
        sqlite3.DatabaseError: SQLite cannot open it at all.
        OSError: it cannot be made.
    """
    with _opening:
        connection = _connect(path)
        connection.file = _file(path)
        _open.add(connection)
    return connection


def _file(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


def _make_file(path: Path) -> None:
    """An empty file for us alone: SQLite's own could be read by all, and its -wal and -shm too."""
    if path.exists():
        return
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, modes.FILE))
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def _connect(path: Path) -> _Connection:
    _make_file(path)
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0, factory=_Connection)
    try:
        prepare(connection)
        _check_tables(connection)
        _check_whole(connection)
        _migrate(connection)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except UnicodeDecodeError as error:  # Python, about SQLite's words for a damaged list of tables
        connection.close()
        raise Unsound("its list of tables cannot be read") from error
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """What every connection of ours needs, whatever is in the file."""
    connection.isolation_level = None  # transactions are opened by hand
    connection.row_factory = sqlite3.Row
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.create_function("folded", 1, _folded, deterministic=True)
    connection.create_function("is_text", 1, _is_text, deterministic=True)
    connection.create_function("is_ids", 1, _is_ids, deterministic=True)


def unwritable(path: Path, error: Exception) -> InstructBlipError:
    """The error of a data folder or file that cannot be used."""
    why = getattr(error, "strerror", None) or error
    return InstructBlipError(
        f"Cannot write the chats to {path}: {why}. Give the server a writable folder "
        "with --data FOLDER.",
        code="store_unwritable",
        path=str(path),
    )


def damaged(path: Path, why: object) -> InstructBlipError:
    """The error of a file that this program cannot read anything from."""
    return InstructBlipError(
        f"{path} is not a database of chats, or is damaged ({why}). Move it away, or choose "
        "another folder with --data FOLDER.",
        code="store_damaged",
        path=str(path),
    )


def _is_database(header: bytes) -> bool:
    page = int.from_bytes(header[16:18], "big")
    sized = page == 1 or (page >= 512 and not page & (page - 1))
    return header.startswith(_MAGIC) and sized and header[21:24] == _FRACTIONS


def _version_in_log(path: Path) -> int:
    """The version in the write-ahead log, where a killed program left it; 0 where there is none."""
    found = pending = 0
    try:
        with path.open("rb") as file:
            head = file.read(32)
            size, salt = int.from_bytes(head[8:12], "big"), head[16:24]
            while size and len(frame := file.read(24)) == 24 and frame[8:16] == salt:
                if frame[:4] == b"\0\0\0\1":
                    header = file.read(_HEADER)
                    pending = int.from_bytes(header[_VERSION_AT], "big", signed=True)
                    file.seek(size - len(header), os.SEEK_CUR)
                else:
                    file.seek(size, os.SEEK_CUR)
                if frame[4:8] != b"\0\0\0\0":  # the end of a transaction
                    found = pending
    except FileNotFoundError:
        return 0
    return found


def tables_of(version: int) -> dict[str, tuple[str, list[str]]]:
    """How a file of that version begins: table → its SQL and its columns."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    for number in range(version):
        _run(made, schema.MIGRATIONS[number])
    found = {
        str(name): (str(sql), _columns(made, str(name)))
        for name, sql in made.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        if not str(name).startswith("sqlite_")
    }
    made.close()
    return found


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]


def _check_tables(connection: sqlite3.Connection) -> None:
    for table, (_, columns) in tables_of(version_of(connection)).items():
        if _columns(connection, table) != columns:
            raise Unsound(f"the table {table} is not there, or not as it was made")


def _check_whole(connection: sqlite3.Connection) -> None:
    """Have SQLite read every page; damaged indexes are made anew."""
    for again in (False, True):
        found = _faults(connection)
        if not found:
            return
        if again:
            break
        try:
            connection.execute("REINDEX")
        except sqlite3.Error:
            break
    raise Unsound(found[0])


def _faults(connection: sqlite3.Connection) -> list[str]:
    pages, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "page_size")
    )
    check = "quick_check" if pages * size > _QUICK_FROM else "integrity_check"
    try:
        said = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(10000)")]
    except sqlite3.OperationalError:
        raise  # locked, or the disk
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [words for words in said if words != "ok" and not words.startswith(_ROW_FAULTS)]


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers and a writer do not wait for each other. The file remembers it."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Only this statement does not wait for a lock: another server is doing the same.
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise


def _folded(text: bytes | None) -> str:
    """Lower case beyond ASCII, for search; SQLite's own LIKE folds ASCII only.

    Of bytes: SQLite's text may be no UTF-8 in a damaged file.
    """
    return (text or b"").decode("utf-8", "replace").casefold()


def _is_text(value: bytes | None) -> bool:
    """Whether these bytes are UTF-8."""
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_ids(value: bytes | None) -> bool:
    """Whether this is a JSON list of token ids, as this program writes it."""
    return _IDS.fullmatch(value or b"") is not None


def _migrate(connection: sqlite3.Connection) -> None:
    for version in range(version_of(connection), schema.VERSION):
        in_transaction(connection, partial(_step, connection, version))


def _step(connection: sqlite3.Connection, version: int) -> None:
    if version_of(connection) > version:  # another server was quicker
        return
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise sqlite3.DatabaseError("it belongs to another program")
    _run(connection, schema.MIGRATIONS[version])
    connection.execute(f"PRAGMA user_version = {version + 1}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    # executescript() would commit first; single statements stay inside a transaction.
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the schema in the file; 0 of a new one."""
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
