"""Chats of a store, per owner."""

from __future__ import annotations

import secrets
import time

from instructblip.errors import BadRequest
from instructblip.texts import one_line, storable
from webui.records import Chat, chat_of, unknown
from webui.storage.owned import OwnedPictures
from webui.storage.room import MAX_CHATS

_EMPTY_AGE = 60.0  # seconds after which a chat without a turn is removed when its owner makes more


class Chats(OwnedPictures):
    """The rows about chats."""

    def new_chat(self, owner: str) -> Chat:
        """An empty chat; it is listed once it has a turn.

        Raises:
            BadRequest: the owner has too many (``chats_full``).
        """
        now = time.time()
        chat = Chat(new_id(), owner, "", None, now, now)
        with self._write():
            self._db.execute(
                "DELETE FROM chats WHERE owner = ? AND leaf_id IS NULL AND created < ?"
                " AND NOT EXISTS (SELECT 1 FROM turns WHERE chat_id = chats.id)",
                (owner, now - _EMPTY_AGE),
            )
            if self._count("SELECT count(*) FROM chats WHERE owner = ?", owner) >= MAX_CHATS:
                raise BadRequest(
                    f"You have {MAX_CHATS} chats, which is all that one visitor may have. "
                    "Delete some that you no longer need.",
                    code="chats_full",
                    limit=MAX_CHATS,
                )
            self._db.execute(
                "INSERT INTO chats (id, owner, title, created, updated) VALUES (?, ?, '', ?, ?)",
                (chat.id, owner, now, now),
            )
        return chat

    def chats(self, owner: str, search: str = "", limit: int = -1) -> list[Chat]:
        """The owner's chats with at least one turn, newest first, that contain ``search``.

        ``limit``: at most so many; -1 for all.
        """
        needle = storable(search.strip().casefold())
        rows = self._all(
            """SELECT * FROM chats WHERE owner = :owner
               AND EXISTS (SELECT 1 FROM turns WHERE chat_id = chats.id)
               AND (:needle = '' OR instr(folded(CAST(title AS BLOB)), :needle) OR EXISTS (
                    SELECT 1 FROM turns WHERE chat_id = chats.id
                    AND (instr(folded(CAST(question AS BLOB)), :needle)
                         OR instr(folded(CAST(answer AS BLOB)), :needle))))
               ORDER BY updated DESC, created DESC LIMIT :limit""",
            {"owner": owner, "needle": needle, "limit": limit},
        )
        return [chat_of(row) for row in rows]

    def chat(self, owner: str, chat_id: str) -> Chat:
        """One chat of this owner.

        Raises:
            UnknownTurn: it is absent or somebody else's.
        """
        row = self._one(
            # Of a leaf that is no turn of this chat the newest turn is as good as any.
            """SELECT id, owner, title, created, updated, CASE WHEN leaf_id IS NULL OR EXISTS (
                   SELECT 1 FROM turns WHERE turns.id = leaf_id AND chat_id = chats.id) THEN leaf_id
               ELSE (SELECT id FROM turns WHERE chat_id = chats.id ORDER BY seq DESC LIMIT 1)
               END AS leaf_id FROM chats WHERE id = ? AND owner = ?""",
            (chat_id, owner),
        )
        if row is None:
            raise unknown("chat", chat_id)
        return chat_of(row)

    def rename_chat(self, owner: str, chat_id: str, title: str) -> None:
        """Give the chat a title of at most 200 characters on one line; a blank one changes nothing."""
        words = storable(one_line(title)[:200])
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
        self._room.forget(owner)

    def has_answers(self, owner: str) -> bool:
        """Whether this owner has been answered here: at least one finished turn with an answer."""
        return bool(
            self._one(
                "SELECT 1 FROM chats JOIN turns ON turns.chat_id = chats.id WHERE chats.owner = ?"
                " AND turns.finish IS NOT NULL AND turns.answer != '' LIMIT 1",
                (owner,),
            )
        )

    def visitors_by_cookie(self) -> int:
        """How many owners nothing but a cookie leads to: without a login, or with one that many use."""
        return self._count(
            "SELECT count(DISTINCT owner) FROM chats"
            " WHERE owner LIKE 'a-%' OR instr(CAST(owner AS BLOB), x'00')"
        )


def new_id() -> str:
    """An id of a chat or turn that cannot be guessed."""
    return secrets.token_hex(12)
