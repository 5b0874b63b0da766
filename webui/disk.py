"""What the disk under the store says, as errors that can be read."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from instructblip.errors import InstructBlipError

PROBE = 2**16  # bytes: an answer with its ids, or a small picture
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
}  # fmt: skip


@contextmanager
def plain_errors() -> Iterator[None]:
    """A disk that does not take what is written inside raises an error of ours.

    Raises:
        InstructBlipError: ``store_full`` or ``store_unwritable``.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        typed = as_disk_error(error)
        if typed is None:
            raise
        raise typed from error


def as_disk_error(error: BaseException) -> InstructBlipError | None:
    """The error of ours for a failure of the disk, or None if it is something else."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # not raised by SQLite itself
            return None
        code &= 0xFF  # without its details
        full, disk = code == sqlite3.SQLITE_FULL, code in _UNWRITABLE
    else:
        number = error.errno if isinstance(error, OSError) else None
        full, disk = number in _FULL, number is not None
    if full:
        return InstructBlipError(
            "The disk is full. Make room on it, then try again.", code="store_full"
        )
    if disk:
        return InstructBlipError(
            f"The data folder cannot be written ({_cause(error)}). Look at its disk and its "
            "permissions, then try again.",
            code="store_unwritable",
        )
    return None


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or nothing; none is open afterwards, whatever fails.

    Raises:
        InstructBlipError: ``store_full`` or ``store_unwritable``.
    """
    with plain_errors():
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            # A COMMIT that failed leaves it open, and it would swallow all that is written later.
            with suppress(sqlite3.Error):
                database.rollback()
            raise


def fill_folder(folder: Path) -> None:
    """Write a file of :data:`PROBE` bytes to the disk and forget it; OSError if that fails."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(PROBE))
        file.flush()
        os.fsync(file.fileno())


def fill_database(database: sqlite3.Connection) -> None:
    """Inside a transaction: take pages for :data:`PROBE` bytes and give them back; write one."""
    database.execute("SAVEPOINT probe")
    database.execute("CREATE TABLE probe (filling)")
    database.execute("INSERT INTO probe VALUES (zeroblob(?))", (PROBE,))
    database.execute("ROLLBACK TO probe")
    database.execute("RELEASE probe")
    (mark,) = database.execute("PRAGMA application_id").fetchone()
    database.execute(f"PRAGMA application_id = {int(mark)}")  # the same: still a page to write


def _cause(error: BaseException) -> str:
    """Without the path that an OSError names: a page may show it."""
    return str(getattr(error, "strerror", None) or error)
