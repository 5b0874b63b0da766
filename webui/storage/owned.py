"""Pictures of a store: whose each is, and when it goes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from webui.pictures import PictureFolder, is_picture_id, mime_of, picture_id_of
from webui.records import unknown
from webui.storage import recovery
from webui.storage.connection import Connection
from webui.storage.room import BLOCK, TURN, Limits, Room

log = logging.getLogger(__name__)


class OwnedPictures(Connection):
    """The rows about pictures; the files are a :class:`PictureFolder`'s."""

    def __init__(
        self, db: sqlite3.Connection, folder: Path, pictures: PictureFolder, limits: Limits
    ) -> None:
        super().__init__(db)
        self._pictures = pictures
        # Called with owner and picture id when an owner's picture is gone.
        self.on_released: Callable[[str, str], None] = lambda owner, picture_id: None
        self._room = Room(folder, limits, self._held)

    def owns_picture(self, owner: str, picture_id: str) -> bool:
        """Whether this owner brought this picture."""
        return is_picture_id(picture_id) and bool(
            self._one(
                "SELECT 1 FROM picture_owners WHERE picture_id = ? AND owner = ?",
                (picture_id, owner),
            )
        )

    def picture_path(self, owner: str, picture_id: str) -> Path:
        """The file of a picture of this owner.

        Raises:
            UnknownTurn: it is absent or somebody else's.
        """
        if not self.owns_picture(owner, picture_id):
            raise unknown("picture", picture_id)
        path = self._pictures.path(picture_id)
        if not path.is_file():
            raise unknown("picture", picture_id)
        return path

    def picture_bytes(self, owner: str, picture_id: str) -> bytes:
        """The stored bytes of a picture of this owner.

        Raises:
            UnknownTurn: it is absent, somebody else's, or no longer the file that was stored.
        """
        try:
            data = self.picture_path(owner, picture_id).read_bytes()
        except OSError:
            raise unknown("picture", picture_id) from None
        if picture_id_of(data) != picture_id:
            log.warning("the picture %s is damaged; brought again, it is written anew", picture_id)
            raise unknown("picture", picture_id)
        return data

    def picture_mime(self, owner: str, picture_id: str) -> str:
        """The stored picture's media type."""
        self.picture_path(owner, picture_id)
        return mime_of(self._pictures, picture_id) or "application/octet-stream"

    def forget_unused(self, age: float) -> int:
        """Remove pictures that came more than ``age`` seconds ago and that no turn shows."""
        with self._write():
            unused = recovery.unused_pictures(self._db, age)
            for picture_id, owner in unused:
                self._release_picture(owner, picture_id)
        for owner in {owner for _, owner in unused}:
            self._room.forget(owner)
        return len(unused)

    # --- inside --------------------------------------------------------------------------------

    def _release_picture(self, owner: str, picture_id: str) -> None:
        still = self._one(
            "SELECT 1 FROM turns JOIN chats ON chats.id = turns.chat_id"
            " WHERE turns.picture_id = ? AND chats.owner = ? LIMIT 1",
            (picture_id, owner),
        )
        if still:
            return
        self._db.execute(
            "DELETE FROM picture_owners WHERE picture_id = ? AND owner = ?", (picture_id, owner)
        )
        self.on_released(owner, picture_id)
        if not self._one("SELECT 1 FROM picture_owners WHERE picture_id = ?", (picture_id,)):
            self._db.execute("DELETE FROM pictures WHERE id = ?", (picture_id,))
            self._pictures.remove(picture_id)

    def _held(self, owner: str | None) -> int:
        """Bytes that an owner keeps, and everybody for None."""
        if owner is None:
            pages, size = (
                self._count(f"SELECT {name} FROM pragma_{name}")
                for name in ("page_count", "page_size")
            )
            return pages * size + self._count("SELECT total(size) FROM picture_owners")
        pictures = self._count(
            f"SELECT total(max(size, {BLOCK})) FROM picture_owners WHERE owner = ?", owner
        )
        return pictures + self._count(
            f"SELECT total(size + {TURN}) FROM turns JOIN chats ON chats.id = chat_id"
            " WHERE owner = ?",
            owner,
        )
