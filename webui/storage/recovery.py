"""The start of a server: what dead ones left is put in order, and what is damaged is moved aside."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webui.pictures import PictureFolder, mime_of
from webui.storage.aside import aside_folder
from webui.storage.damage import mend_rows
from webui.storage.servers import Servers

log = logging.getLogger(__name__)
ABANDONED = 3600.0  # seconds; younger things another living server may just be making


def recover(
    db: sqlite3.Connection, data: Path, pictures: PictureFolder, servers: Servers, mine: str
) -> int:
    """Put the data folder in order, in the caller's transaction, with foreign keys off.

    Returns the number of answers that dead servers left running; they are interrupted now.
    """
    damaged = mend_rows(db)
    if damaged:
        log.warning(
            "%d damaged row(s) in the chats were mended or moved aside; what they were stands in the "
            "table 'damaged' of %s.",
            damaged, data / "chats.sqlite3",
        )  # fmt: skip
    marked = _mark(db, servers, mine)
    made_before = time.time() - (ABANDONED if servers.others(mine) else 0.0)
    db.execute(
        "DELETE FROM chats WHERE created <= ? AND id NOT IN (SELECT chat_id FROM turns)",
        (made_before,),
    )
    _restore_pictures(db, pictures)
    _check_files(db, data, pictures, made_before)
    return marked


def _mark(db: sqlite3.Connection, servers: Servers, mine: str) -> int:
    """Interrupt the answers that no living server writes; what they have so far stays."""
    rows = db.execute("SELECT DISTINCT server FROM turns WHERE finish IS NULL").fetchall()
    marked = 0
    for server in (str(row[0]) for row in rows):
        # Without an id: written by version 1, or by a program that is no server.
        if servers.alive(server) if server else servers.others(mine):
            continue
        marked += db.execute(
            "UPDATE turns SET finish = 'interrupted' WHERE finish IS NULL AND server = ?", (server,)
        ).rowcount
    return marked


def _restore_pictures(db: sqlite3.Connection, pictures: PictureFolder) -> None:
    """Of a picture that an owner's turn shows and whose file is there, lost rows are made again."""
    lost = db.execute(
        """SELECT DISTINCT turns.picture_id, chats.owner FROM turns JOIN chats ON chats.id = turns.chat_id
           WHERE turns.picture_id != '' AND NOT EXISTS (SELECT 1 FROM picture_owners JOIN pictures
               ON pictures.id = picture_id
               WHERE picture_id = turns.picture_id AND picture_owners.owner = chats.owner)"""
    ).fetchall()
    now = time.time()
    for picture_id, owner in lost:
        mime = mime_of(pictures, picture_id)
        if mime is None:
            continue
        db.execute(
            "INSERT OR IGNORE INTO pictures (id, mime, width, height, created) VALUES (?, ?, 0, 0, ?)",
            (picture_id, mime, now),
        )
        db.execute(
            "INSERT OR IGNORE INTO picture_owners (picture_id, owner, created) VALUES (?, ?, ?)",
            (picture_id, owner, now),
        )


def _check_files(
    db: sqlite3.Connection, data: Path, pictures: PictureFolder, made_before: float
) -> None:
    """Compare the pictures' files with their rows; younger files are another server's business."""
    sizes = dict(db.execute("SELECT picture_id, max(size) FROM picture_owners GROUP BY picture_id"))
    known = {str(row[0]) for row in db.execute("SELECT id FROM pictures")}
    keep = bool(db.execute("SELECT 1 FROM damaged LIMIT 1").fetchone())
    aside: list[Path] = []
    for picture_id, path, state in _files(pictures, made_before):
        if picture_id in known:
            if (size := sizes.get(picture_id, 0)) and size != state.st_size:
                aside.append(path)
            elif not size:
                db.execute(
                    "UPDATE picture_owners SET size = ? WHERE picture_id = ?",
                    (state.st_size, picture_id),
                )
        elif keep:  # its row may be among what was lost
            aside.append(path)
        elif state.st_mtime <= made_before:
            path.unlink(missing_ok=True)
        known.discard(picture_id)
    if aside:
        folder = aside_folder(data)
        for path in aside:
            os.replace(path, folder / path.name)
        log.warning("%d damaged picture(s) were moved to %s.", len(aside), folder)
    if known:
        log.warning("%d picture(s) have no file any more; their chats show none.", len(known))


def _files(
    pictures: PictureFolder, made_before: float
) -> Iterator[tuple[str, Path, os.stat_result]]:
    for picture_id in list(pictures.ids(older=time.time() - made_before)):
        path = pictures.path(picture_id)
        try:
            yield picture_id, path, path.stat()
        except OSError:  # removed meanwhile
            continue


@contextmanager
def without_foreign_keys(db: sqlite3.Connection) -> Iterator[None]:
    """A row that is moved aside takes none with it. Not inside a transaction."""
    db.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        db.execute("PRAGMA foreign_keys = ON")


def unused_pictures(db: sqlite3.Connection, age: float, most: int = 1000) -> list[tuple[str, str]]:
    """Pictures and owners, brought more than ``age`` seconds ago, never asked about or no longer."""
    rows = db.execute(
        """SELECT picture_id, owner FROM picture_owners WHERE created < ? AND NOT EXISTS (
               SELECT 1 FROM turns JOIN chats ON chats.id = turns.chat_id
               WHERE turns.picture_id = picture_owners.picture_id
               AND chats.owner = picture_owners.owner) LIMIT ?""",
        (time.time() - age, most),
    ).fetchall()
    return [(str(row[0]), str(row[1])) for row in rows]
