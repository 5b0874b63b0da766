"""Which servers run on a data folder: each holds a lock on a file of its own for as long as it lives.

The system drops the lock with the process, however that ends. The store itself is not locked:
commands open it beside a server, and several servers may share it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webui.storage.modes import make_private

log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{16}\Z")

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int, *, wait: bool) -> None:
        msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int, *, wait: bool) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


class Servers:
    """The servers of one data folder, in ``<data>/servers/<id>.lock``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "servers"

    def join(self) -> Server:
        """Be one of them, and clear away what dead ones left.

        Raises:
            OSError: the folder cannot be written.
        """
        make_private(self.folder)
        server = Server(self.folder / f"{secrets.token_hex(8)}.lock")
        with self._alone():
            for path in self.folder.glob("*.lock"):
                if _ID.match(path.stem) and not _held(path):
                    path.unlink(missing_ok=True)
            server._enter()
        return server

    def alive(self, server_id: str) -> bool:
        """Whether the server with this id runs."""
        return bool(_ID.match(server_id)) and _held(self.folder / f"{server_id}.lock")

    def others(self, mine: str = "") -> bool:
        """Whether any server runs but the one with the id ``mine``."""
        return any(path.stem != mine and _held(path) for path in self.folder.glob("*.lock"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time: a file that is made but not locked yet would look like a dead server's."""
        handle = os.open(self.folder / "joining", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                _take(handle, wait=True)
            except OSError as error:
                log.warning(
                    "The file system of %s has no locks (%s): with two servers on this folder one "
                    "takes the other's running answers for cut off until they end.",
                    self.folder, error.strerror,
                )  # fmt: skip
            yield
        finally:
            os.close(handle)


class Server:
    """This server's place among the others, until :meth:`leave` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.id = path.stem
        self._path = path
        self._handle: int | None = None

    def _enter(self) -> None:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take(self._handle, wait=True)  # somebody may be looking at it just now
        except OSError:  # said where the servers come together
            log.debug("no lock for %s", self._path)

    def leave(self) -> None:
        """The server ends; any number of times."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._path.unlink(missing_ok=True) if os.name == "posix" else None
            os.close(handle)


def _held(path: Path) -> bool:
    """Whether somebody holds this file's lock. One that was taken to see is given back at once."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _take(handle, wait=False)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
