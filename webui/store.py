"""Chats as trees of turns in SQLite, pictures by content hash, both per owner.

Every method that takes an id checks that it belongs to the owner; an absent id and somebody
else's give the same :class:`UnknownTurn`, so nothing can be learnt by trying.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instructblip.errors import InstructBlipError
from instructblip.images import MAX_BYTES, prepare
from webui.pictures import PictureFolder, is_picture_id
from webui.records import Chat, Turn, chat_of, storable, title_of, turn_of, unknown
from webui.schema import open_database

UNUSED_PICTURE_AGE = 24 * 3600.0  # uploaded, never asked about: removed at a start after this long


class Store:
    """The saved state of the page. Safe from any thread: one connection behind a lock."""

    def __init__(self, folder: Path, max_picture: int = MAX_BYTES) -> None:
        self.folder = Path(folder)
        self._max_picture = max_picture  # bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._pictures = PictureFolder(self.folder / "pictures")
        except OSError as error:
            raise InstructBlipError(
                f"Cannot write to the data folder {self.folder}: {error.strerror}. Choose a "
                "writable one with --data FOLDER.",
                code="store_unwritable",
                path=str(self.folder),
            ) from error
        self._lock = threading.RLock()
        self._db = open_database(self.folder / "chats.sqlite3")

    def close(self) -> None:
        """Close the database; later calls fail."""
        with self._lock:
            self._db.close()

    # --- chats ---------------------------------------------------------------------------------

    def new_chat(self, owner: str) -> Chat:
        """An empty chat; it is listed once it has a turn."""
        now = time.time()
        chat = Chat(_new_id(), owner, "", None, now, now)
        with self._write():
            self._db.execute(
                "INSERT INTO chats (id, owner, title, created, updated) VALUES (?, ?, '', ?, ?)",
                (chat.id, owner, now, now),
            )
        return chat

    def chats(self, owner: str, search: str = "") -> list[Chat]:
        """The owner's chats with at least one turn, newest first, that contain ``search``."""
        needle = storable(search.strip().casefold())
        rows = self._all(
            """SELECT * FROM chats WHERE owner = :owner
               AND EXISTS (SELECT 1 FROM turns WHERE chat_id = chats.id)
               AND (:needle = '' OR instr(folded(title), :needle) OR EXISTS (
                    SELECT 1 FROM turns WHERE chat_id = chats.id
                    AND (instr(folded(question), :needle) OR instr(folded(answer), :needle))))
               ORDER BY updated DESC, created DESC""",
            {"owner": owner, "needle": needle},
        )
        return [chat_of(row) for row in rows]

    def chat(self, owner: str, chat_id: str) -> Chat:
        """One chat of this owner.

        Raises:
            UnknownTurn: it is absent or somebody else's.
        """
        row = self._one("SELECT * FROM chats WHERE id = ? AND owner = ?", (chat_id, owner))
        if row is None:
            raise unknown("chat", chat_id)
        return chat_of(row)

    def rename_chat(self, owner: str, chat_id: str, title: str) -> None:
        """Give the chat a title of at most 200 characters; a blank one changes nothing."""
        words = storable(title.strip()[:200])
        with self._write():
            self.chat(owner, chat_id)
            self._db.execute(
                "UPDATE chats SET title = ?1 WHERE id = ?2 AND ?1 != ''", (words, chat_id)
            )

    def delete_chat(self, owner: str, chat_id: str) -> None:
        """Remove the chat, its turns, and the pictures that no other chat of the owner shows."""
        with self._write():
            self.chat(owner, chat_id)
            used = self._all("SELECT DISTINCT picture_id FROM turns WHERE chat_id = ?", (chat_id,))
            self._db.execute("DELETE FROM chats WHERE id = ?", (chat_id,))
            for row in used:
                self._release_picture(owner, row["picture_id"])

    # --- pictures ------------------------------------------------------------------------------

    def add_picture(self, owner: str, data: bytes, name: str = "") -> str:
        """Check a picture, keep it upright and free of metadata, and return its id.

        Raises:
            PictureError: the bytes are not a picture we can read.
        """
        prepared = prepare(data, max_bytes=self._max_picture)
        now = time.time()
        with self._write():
            picture_id = self._pictures.write(prepared.data)
            self._db.execute(
                "INSERT OR IGNORE INTO pictures (id, mime, width, height, created) VALUES (?, ?, ?, ?, ?)",
                (picture_id, prepared.mime, prepared.width, prepared.height, now),
            )
            self._db.execute(
                "INSERT OR IGNORE INTO picture_owners (picture_id, owner, name, created) VALUES (?, ?, ?, ?)",
                (picture_id, owner, storable(Path(name).name[:200]), now),
            )
        return picture_id

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
        return self._pictures.path(picture_id)

    def picture_bytes(self, owner: str, picture_id: str) -> bytes:
        """The stored bytes of a picture of this owner."""
        try:
            return self.picture_path(owner, picture_id).read_bytes()
        except FileNotFoundError:
            raise unknown("picture", picture_id) from None

    def picture_mime(self, owner: str, picture_id: str) -> str:
        """The stored picture's media type."""
        self.picture_path(owner, picture_id)
        row = self._one("SELECT mime FROM pictures WHERE id = ?", (picture_id,))
        return str(row["mime"]) if row else "application/octet-stream"

    # --- turns ---------------------------------------------------------------------------------

    def add_turn(
        self,
        owner: str,
        chat_id: str,
        parent_id: str | None,
        question: str,
        picture_id: str,
        parameters: dict[str, Any] | None = None,
    ) -> Turn:
        """Append a question below ``parent_id`` (None: a new root) and make it the leaf.

        Raises:
            UnknownTurn: an id is absent, somebody else's, or the parent is of another chat.
        """
        turn_id, now, question = _new_id(), time.time(), storable(question)
        with self._write():
            chat = self.chat(owner, chat_id)
            if parent_id is not None and self.turn(owner, parent_id).chat_id != chat_id:
                raise unknown("turn", parent_id)
            self.picture_path(owner, picture_id)
            self._db.execute(
                "INSERT INTO turns (id, chat_id, parent_id, question, picture_id, parameters,"
                " created) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (turn_id, chat_id, parent_id, question, picture_id, _json(parameters or {}), now),
            )
            title = chat.title or title_of(question)
            self._db.execute(
                "UPDATE chats SET leaf_id = ?, updated = ?, title = ? WHERE id = ?",
                (turn_id, now, title, chat_id),
            )
        return self.turn(owner, turn_id)

    def drop_turn(self, owner: str, turn_id: str) -> None:
        """Take back a turn that no engine accepted; the leaf goes back to its parent."""
        with self._write():
            turn = self.turn(owner, turn_id)
            self._db.execute(
                "UPDATE chats SET leaf_id = ? WHERE id = ? AND leaf_id = ?",
                (turn.parent_id, turn.chat_id, turn_id),
            )
            self._db.execute("DELETE FROM turns WHERE id = ?", (turn_id,))
            self._db.execute(  # the title was this question's
                "UPDATE chats SET title = '' WHERE id = ?1"
                " AND NOT EXISTS (SELECT 1 FROM turns WHERE chat_id = ?1)",
                (turn.chat_id,),
            )

    def write_answer(self, turn_id: str, text: str, ids: Sequence[int]) -> None:
        """Save what has been generated so far of a running answer."""
        with self._write():
            self._db.execute(
                "UPDATE turns SET answer = ?, answer_ids = ? WHERE id = ? AND finish IS NULL",
                (storable(text), _json(list(ids)), turn_id),
            )

    def finish_turn(
        self,
        turn_id: str,
        *,
        finish: str,
        answer: str,
        answer_ids: Sequence[int],
        qformer_text: str,
        tokenizer: str,
        statistics: dict[str, float],
        error: str = "",
        error_code: str = "",
        error_values: dict[str, Any] | None = None,
    ) -> None:
        """Save the finished answer with why it ended."""
        with self._write():
            self._db.execute(
                "UPDATE turns SET finish = ?, answer = ?, answer_ids = ?, qformer_text = ?,"
                " tokenizer = ?, statistics = ?, error = ?, error_code = ?, error_values = ?"
                " WHERE id = ?",
                (
                    str(finish),
                    storable(answer),
                    _json(list(answer_ids)),
                    storable(qformer_text),
                    tokenizer,
                    _json(statistics),
                    storable(error),
                    error_code,
                    _json(error_values or {}),
                    turn_id,
                ),
            )
            self._db.execute(
                "UPDATE chats SET updated = ? WHERE id = (SELECT chat_id FROM turns WHERE id = ?)",
                (time.time(), turn_id),
            )

    def turn(self, owner: str, turn_id: str) -> Turn:
        """One turn of this owner.

        Raises:
            UnknownTurn: it is absent or somebody else's.
        """
        row = self._one(
            "SELECT turns.* FROM turns JOIN chats ON chats.id = turns.chat_id"
            " WHERE turns.id = ? AND chats.owner = ?",
            (turn_id, owner),
        )
        if row is None:
            raise unknown("turn", turn_id)
        return turn_of(row)

    def path(self, owner: str, chat_id: str) -> list[Turn]:
        """The shown turns of a chat, root to leaf."""
        leaf = self.chat(owner, chat_id).leaf_id
        return self.path_to(owner, leaf) if leaf else []

    def path_to(self, owner: str, turn_id: str) -> list[Turn]:
        """The turns from the root to this one, itself included."""
        self.turn(owner, turn_id)
        rows = self._all(
            """WITH RECURSIVE up (id, depth) AS (
                   SELECT ?, 0 UNION ALL
                   SELECT turns.parent_id, depth + 1 FROM turns JOIN up ON turns.id = up.id
                   WHERE turns.parent_id IS NOT NULL)
               SELECT turns.* FROM turns JOIN up ON turns.id = up.id ORDER BY depth DESC""",
            (turn_id,),
        )
        return [turn_of(row) for row in rows]

    def siblings(self, owner: str, turn_id: str) -> list[Turn]:
        """The versions beside a turn (same parent), itself included, oldest first."""
        turn = self.turn(owner, turn_id)
        rows = self._all(
            "SELECT * FROM turns WHERE chat_id = ? AND parent_id IS ? ORDER BY seq",
            (turn.chat_id, turn.parent_id),
        )
        return [turn_of(row) for row in rows]

    def set_leaf(
        self, owner: str, chat_id: str, turn_id: str | None, *, descend: bool = False
    ) -> None:
        """Show the chat up to this turn; with ``descend``, on to the newest leaf below it.

        ``None`` shows nothing of it: undo of the first question.
        """
        with self._write():
            self.chat(owner, chat_id)
            if turn_id is not None and self.turn(owner, turn_id).chat_id != chat_id:
                raise unknown("turn", turn_id)
            leaf = self._newest_below(turn_id) if turn_id is not None and descend else turn_id
            self._db.execute("UPDATE chats SET leaf_id = ? WHERE id = ?", (leaf, chat_id))

    def has_answers(self, owner: str) -> bool:
        """Whether this owner has been answered here: at least one finished turn with an answer."""
        return bool(
            self._one(
                "SELECT 1 FROM chats JOIN turns ON turns.chat_id = chats.id WHERE chats.owner = ?"
                " AND turns.finish IS NOT NULL AND turns.answer != '' LIMIT 1",
                (owner,),
            )
        )

    # --- start of the server -------------------------------------------------------------------

    def recover(self) -> int:
        """Mark the answers that a killed server left running as interrupted; their text stays.

        Also removes empty chats and pictures nobody asked about. Returns the number of answers.
        """
        with self._write():
            marked = self._db.execute(
                "UPDATE turns SET finish = 'interrupted' WHERE finish IS NULL"
            ).rowcount
            self._db.execute("DELETE FROM chats WHERE id NOT IN (SELECT chat_id FROM turns)")
            unused = self._all(
                "SELECT picture_id, owner FROM picture_owners WHERE created < ?",
                (time.time() - UNUSED_PICTURE_AGE,),
            )
            for row in unused:
                self._release_picture(row["owner"], row["picture_id"])
            known = {row["id"] for row in self._all("SELECT id FROM pictures", ())}
            for picture_id in list(self._pictures.ids()):
                if picture_id not in known:
                    self._pictures.remove(picture_id)
        return int(marked)

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
        if not self._one("SELECT 1 FROM picture_owners WHERE picture_id = ?", (picture_id,)):
            self._db.execute("DELETE FROM pictures WHERE id = ?", (picture_id,))
            self._pictures.remove(picture_id)

    def _newest_below(self, turn_id: str) -> str:
        """The last made turn of the subtree: every turn made last has nothing below it."""
        row = self._one(
            """WITH RECURSIVE down (id) AS (
                   SELECT ? UNION ALL SELECT turns.id FROM turns JOIN down ON parent_id = down.id)
               SELECT turns.id FROM turns JOIN down ON turns.id = down.id ORDER BY seq DESC LIMIT 1""",
            (turn_id,),
        )
        return str(row["id"]) if row else turn_id

    @contextmanager
    def _write(self) -> Iterator[None]:
        with self._lock:
            if self._db.in_transaction:  # inside another method's transaction
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _one(self, query: str, values: tuple[str, ...]) -> sqlite3.Row | None:
        values = tuple(storable(value) for value in values)
        with self._lock:
            row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
            return row

    def _all(self, query: str, values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()


def _new_id() -> str:
    return secrets.token_hex(12)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)
