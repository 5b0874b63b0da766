"""Pictures on disk, named by their content: ``<data>/pictures/<id[:2]>/<id>``."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from webui.storage.modes import make_private

_ID = re.compile(r"[0-9a-f]{32}\Z")


def picture_id_of(data: bytes) -> str:
    """The id of stored bytes: the first 32 hex digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def is_picture_id(text: str) -> bool:
    """Whether this could be an id at all; anything else never reaches the disk."""
    return isinstance(text, str) and _ID.match(text) is not None


_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}  # what is ever stored


def mime_of(pictures: PictureFolder, picture_id: str) -> str | None:
    """The media type that a stored file's first bytes tell; None where it has none of ours."""
    try:
        with pictures.path(picture_id).open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError):
        return None
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)


class PictureFolder:
    """Reads, writes and removes picture files; knows nothing about owners."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_private(folder)

    def path(self, picture_id: str) -> Path:
        """Where the bytes of this id are, or would be."""
        if not is_picture_id(picture_id):
            raise ValueError(f"{picture_id!r} is not a picture id")
        return self.folder / picture_id[:2] / picture_id

    def write(self, data: bytes) -> str:
        """Store bytes under their id; a crash leaves either the whole file or none."""
        picture_id = picture_id_of(data)
        path = self.path(picture_id)
        if path.exists() and path.read_bytes() == data:  # a damaged one is written again
            return picture_id
        make_private(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return picture_id

    def remove(self, picture_id: str) -> None:
        """Delete a picture's file; absent is fine."""
        self.path(picture_id).unlink(missing_ok=True)

    def ids(self, older: float = 0.0) -> Iterator[str]:
        """Every id that has a file. Half-written leftovers of that age in seconds are removed."""
        for path in self.folder.glob("??/*"):
            if is_picture_id(path.name):
                yield path.name
            elif path.name.startswith(".new-"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime <= time.time() - older:
                        path.unlink()
