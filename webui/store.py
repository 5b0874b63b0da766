"""Chats as trees of turns in SQLite, pictures by content hash, both per owner.

Every method that takes an id checks that it belongs to the owner; an absent id and somebody
else's give the same :class:`UnknownTurn`, so nothing can be learnt by trying.
"""

from __future__ import annotations

import time
from pathlib import Path

from instructblip.errors import InstructBlipError
from instructblip.images import MAX_BYTES, Prepared, prepare
from instructblip.texts import storable
from webui.disk import fill_database, fill_folder, plain_errors
from webui.pictures import PictureFolder, picture_id_of
from webui.records import Chat, Turn
from webui.storage import recovery
from webui.storage.database import check_file, unwritable
from webui.storage.modes import make_private, tighten
from webui.storage.opening import open_database
from webui.storage.room import Limits
from webui.storage.servers import Servers
from webui.storage.turns import Turns

__all__ = ["UNUSED_PICTURE_AGE", "Chat", "Limits", "Store", "Turn"]

UNUSED_PICTURE_AGE = 24 * 3600.0  # seconds after which one that nobody asked about is removed
_SHORT_OF_ROOM = 3600.0  # the same, when there is no room for others
_SWEEP_EVERY = 3600.0  # seconds
_SWEEP_AGAIN = 60.0  # seconds, when there is no room


class Store(Turns):
    """The saved state of the page. Safe from any thread: one connection behind a lock."""

    def __init__(
        self, folder: Path, max_picture: int = MAX_BYTES, limits: Limits | None = None
    ) -> None:
        self.folder = Path(folder)
        self._max_picture = max_picture  # bytes
        database = self.folder / "chats.sqlite3"
        check_file(database)  # a newer program's folder is left as it is
        try:
            make_private(self.folder)
            tighten(self.folder)
            pictures = PictureFolder(self.folder / "pictures")
        except OSError as error:
            raise unwritable(self.folder, error) from error
        super().__init__(open_database(database), self.folder, pictures, limits or Limits())
        self._swept = time.monotonic()

    def close(self) -> None:
        """Close the database; later calls fail."""
        with self._lock:
            self._db.close()
            if self._server is not None:
                self._server.leave()

    def probe(self) -> None:
        """Write something small and keep nothing of it, or raise as every write does."""
        with plain_errors():
            fill_folder(self.folder)
        with self._write():
            fill_database(self._db)

    # --- pictures ------------------------------------------------------------------------------

    def add_picture(self, owner: str, data: bytes, name: str = "") -> str:
        """Read a trusted picture in this process, keep it and return its id.

        Raises:
            PictureError: the bytes are not a picture we can read.
            BadRequest, Busy: as :meth:`keep_picture`.
        """
        return self.keep_picture(owner, prepare(data, max_bytes=self._max_picture), name)

    def keep_picture(self, owner: str, prepared: Prepared, name: str = "") -> str:
        """Keep a picture that was read, upright and free of metadata, and return its id.

        Raises:
            BadRequest: the owner keeps too much here (``storage_owner``).
            Busy: the server has no room left (``storage_all``).
        """
        now = time.time()
        self._make_room(owner, prepared.data)
        with self._write():
            picture_id = self._pictures.write(prepared.data)
            self._db.execute(
                "INSERT OR IGNORE INTO pictures (id, mime, width, height, created) VALUES (?, ?, ?, ?, ?)",
                (picture_id, prepared.mime, prepared.width, prepared.height, now),
            )
            self._db.execute(
                "INSERT OR IGNORE INTO picture_owners (picture_id, owner, name, created, size)"
                " VALUES (?, ?, ?, ?, ?)",
                (picture_id, owner, storable(Path(name).name[:200]), now, len(prepared.data)),
            )
        return picture_id

    def _make_room(self, owner: str, data: bytes) -> None:
        """Count a picture that comes. Those that nobody asks about for long make room for it."""
        self._sweep(_SWEEP_EVERY, UNUSED_PICTURE_AGE)
        if self.owns_picture(owner, picture_id_of(data)):
            return
        known = self.has_answers(owner)
        try:
            self._room.check_picture(owner, len(data), known)
        except InstructBlipError:
            if not self._sweep(_SWEEP_AGAIN, _SHORT_OF_ROOM):
                raise
            self._room.check_picture(owner, len(data), known)

    def _sweep(self, every: float, age: float) -> int:
        if time.monotonic() - self._swept < every:
            return 0
        self._swept = time.monotonic()
        return self.forget_unused(age)

    # --- start of the server -------------------------------------------------------------------

    def recover(self) -> int:
        """Join the servers of this folder, and put in order what dead ones left.

        Their running answers are marked as interrupted, with the text that they have; what is
        damaged is moved aside. Returns the number of those answers.
        """
        servers = Servers(self.folder)
        with self._lock:
            if self._server is None:
                self._server = servers.join()
            with recovery.without_foreign_keys(self._db), self._write():
                marked = recovery.recover(
                    self._db, self.folder, self._pictures, servers, self._server.id
                )
        self.forget_unused(UNUSED_PICTURE_AGE)
        return marked
