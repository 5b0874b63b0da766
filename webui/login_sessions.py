"""Who is logged in: one row for each session, in a database of its own in the data folder.

A session is on the server, so that logging out ends it. The cookie carries a random token, the
database its hash. Beside them lie the hashes of passwords that came in plain text by ``--auth``:
the same password keeps its hash, and its sessions, over a restart.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from instructblip.errors import InstructBlipError

log = logging.getLogger(__name__)

AGE = 30 * 24 * 3600.0  # seconds that a session lasts at most
PER_LOGIN = 10_000  # sessions; one more ends the one that was used longest ago
_SEEN_EVERY = 60.0  # seconds between notes that a session is used
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions(
    token BLOB PRIMARY KEY, login TEXT NOT NULL, owner TEXT NOT NULL, proof TEXT NOT NULL,
    begun REAL NOT NULL, seen REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_login ON sessions(login, seen);
CREATE TABLE IF NOT EXISTS hashes(login TEXT PRIMARY KEY, hash TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Session:
    """``proof`` stands for the password it was begun with."""

    login: str
    owner: str
    proof: str


class LoginSessions:
    """The table of sessions, for any thread.

    Args:
        folder: the data folder; ``logins.sqlite3`` is made in it, with mode 0600.
        idle: seconds without a request after which a session has ended.

    Raises:
        InstructBlipError: the file cannot be made or written (``store_unwritable``).
    """

    def __init__(self, folder: Path, idle: float) -> None:
        self.path, self._idle = folder / "logins.sqlite3", idle
        self._lock = threading.Lock()
        self._database = self._open()

    def begin(self, session: Session) -> str:
        """Begin a session; its token, for the cookie.

        Raises:
            InstructBlipError: it cannot be written down (``store_unwritable``).
        """
        token, now = secrets.token_hex(32), time.time()
        row = (_hashed(token), session.login, session.owner, session.proof, now, now)
        with self._writing() as database:
            self._prune(database, session.login, now)
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", row)
        return token

    def read(self, token: str) -> Session | None:
        """The session of a token, unless it has ended; reading it counts as a use."""
        now, key = time.time(), _hashed(token)
        query = "SELECT login, owner, proof, begun, seen FROM sessions WHERE token = ?"
        try:
            with self._lock:
                found = self._database.execute(query, (key,)).fetchone()
        except sqlite3.Error as error:  # nobody is let in by a fault
            log.warning("%s cannot be read (%s).", self.path, error)
            return None
        if found is None:
            return None
        login, owner, proof, begun, seen = found
        if now - begun > AGE or now - seen > self._idle:
            return None
        if now - seen > min(_SEEN_EVERY, self._idle / 10):
            self._use(key, now)
        return Session(login, owner, proof)

    def end(self, token: str) -> None:
        """End a session, for ever.

        Raises:
            InstructBlipError: that cannot be written down (``store_unwritable``).
        """
        with self._writing() as database:
            database.execute("DELETE FROM sessions WHERE token = ?", (_hashed(token),))

    def keep(self, proofs: Collection[str]) -> None:
        """End all sessions but those of these passwords."""
        with self._writing() as database:
            found = database.execute("SELECT DISTINCT proof FROM sessions").fetchall()
            gone = [row for row in found if row[0] not in proofs]
            database.executemany("DELETE FROM sessions WHERE proof = ?", gone)

    def kept_hash(self, login: str) -> str:
        """The hash that was kept of a login's password; empty when there is none."""
        with self._lock:
            found = self._database.execute("SELECT hash FROM hashes WHERE login = ?", (login,))
            return str((found.fetchone() or ("",))[0])

    def keep_hashes(self, hashes: Mapping[str, str]) -> None:
        """Keep the hashes of passwords that came in plain text, and no others."""
        with self._writing() as database:
            database.execute("DELETE FROM hashes")
            database.executemany("INSERT INTO hashes VALUES (?, ?)", hashes.items())

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _use(self, key: bytes, now: float) -> None:
        try:
            with self._writing() as database:
                database.execute("UPDATE sessions SET seen = ? WHERE token = ?", (now, key))
        except InstructBlipError as error:  # it goes on; it may end as idle later
            log.warning("%s", error)

    def _prune(self, database: sqlite3.Connection, login: str, now: float) -> None:
        database.execute(
            "DELETE FROM sessions WHERE begun < ? OR seen < ?", (now - AGE, now - self._idle)
        )
        database.execute(
            "DELETE FROM sessions WHERE token IN (SELECT token FROM sessions WHERE login = ? "
            "ORDER BY seen DESC LIMIT -1 OFFSET ?)",
            (login, PER_LOGIN - 1),
        )

    def _writing(self) -> _Writing:
        return _Writing(self._database, self._lock, self.path)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _unwritable(self.path, error) from error
            mark = f".damaged-{int(time.time())}"
            for each in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{each}", f"{self.path}{mark}{each}")
            log.warning(
                "%s was damaged (%s): it is now %s, and all log in again.",
                self.path, error, self.path.name + mark,
            )  # fmt: skip
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        made = sqlite3.connect(self.path, timeout=5, check_same_thread=False, isolation_level=None)
        try:
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=NORMAL")
            made.executescript(_SCHEMA)
        except sqlite3.Error:
            made.close()
            raise
        return made


class _Writing:
    """One transaction; an error of the disk is one of ours."""

    def __init__(self, database: sqlite3.Connection, lock: threading.Lock, path: Path) -> None:
        self._database, self._lock, self._path = database, lock, path

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._lock.release()
            raise _unwritable(self._path, error) from error
        return self._database

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._database.execute("ROLLBACK" if error is not None else "COMMIT")
        except sqlite3.Error as failed:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise _unwritable(self._path, failed) from failed
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise _unwritable(self._path, error) from error


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _unwritable(path: Path, error: Exception) -> InstructBlipError:
    reason = error.strerror if isinstance(error, OSError) else error
    return InstructBlipError(
        f"{path} cannot be read or written ({reason}). Free some room on its disk, or name another "
        "folder with --data FOLDER.",
        code="store_unwritable",
        path=str(path),
    )
