"""Turns of a store: each chat is a tree of them, and shows the path to its leaf."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from instructblip.errors import BadRequest
from instructblip.texts import storable
from webui.records import Turn, lost_turn, title_of, turn_of, unknown
from webui.storage.chats import Chats, new_id
from webui.storage.room import MAX_TURNS
from webui.storage.servers import Server


class Turns(Chats):
    """The rows about turns. ``_server`` is the server whose answers they get, if it is one."""

    _server: Server | None = None

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
            BadRequest: the chat has too many turns (``chat_full``), or its owner too much
                (``storage_owner``).
            Busy: the server has no room left (``storage_all``).
        """
        turn_id, now, question = new_id(), time.time(), storable(question)
        size = len(question.encode())
        server = self._server.id if self._server is not None else ""
        with self._write():
            chat = self.chat(owner, chat_id)
            if parent_id is not None and self.turn(owner, parent_id).chat_id != chat_id:
                raise unknown("turn", parent_id)
            self.picture_path(owner, picture_id)
            if self._count("SELECT count(*) FROM turns WHERE chat_id = ?", chat_id) >= MAX_TURNS:
                raise BadRequest(
                    f"This chat has {MAX_TURNS} turns, which is all that one may have. Start "
                    "a new chat.",
                    code="chat_full",
                    limit=MAX_TURNS,
                )
            self._room.check_turn(owner, size)
            self._db.execute(
                "INSERT INTO turns (id, chat_id, parent_id, question, picture_id, parameters,"
                " created, server, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (turn_id, chat_id, parent_id, question, picture_id, _json(parameters or {}), now,
                 server, size),
            )  # fmt: skip
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
        """Save what has been generated so far of a running answer.

        Another server may have taken this one for dead; whoever writes the answer knows better.
        """
        mine = self._server.id if self._server is not None else None
        with self._write():
            self._db.execute(
                "UPDATE turns SET answer = ?, answer_ids = ?, finish = NULL WHERE id = ?"
                " AND (finish IS NULL OR (finish = 'interrupted' AND server = ?))",
                (storable(text), _json(list(ids)), turn_id, mine),
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
        """Save the finished answer with why it ended. No server writes it from then on."""
        texts = storable(answer), _json(list(answer_ids)), storable(qformer_text)
        with self._write():
            self._db.execute(
                "UPDATE turns SET finish = ?, answer = ?, answer_ids = ?, qformer_text = ?,"
                " tokenizer = ?, statistics = ?, error = ?, error_code = ?, error_values = ?,"
                " server = '', size = length(CAST(question AS BLOB)) + ? WHERE id = ?",
                (
                    str(finish),
                    *texts,
                    tokenizer,
                    _json(statistics),
                    storable(error),
                    error_code,
                    _json(error_values or {}),
                    sum(len(each.encode()) for each in texts),
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
        """The turns from the root to this one, itself included.

        In a damaged file a parent may be lost, or lead in a circle: an empty turn stands for it.
        """
        chat_id = self.turn(owner, turn_id).chat_id
        rows = self._all(
            f"""WITH RECURSIVE up (id, depth) AS (
                   SELECT ?, 0 UNION
                   SELECT turns.parent_id, depth + 1 FROM turns JOIN up ON turns.id = up.id
                   WHERE turns.parent_id IS NOT NULL AND depth < {MAX_TURNS})
               SELECT turns.* FROM turns JOIN up ON turns.id = up.id
               WHERE turns.chat_id = ? ORDER BY depth""",
            (storable(turn_id), chat_id),
        )
        found: dict[str, Turn] = {}
        expected: str | None = turn_id
        for turn in map(turn_of, rows):
            if turn.id != expected or turn.id in found:
                break
            found[turn.id] = turn
            expected = turn.parent_id
        path = list(found.values())
        if expected is not None:
            path.append(lost_turn(chat_id))
        return path[::-1]

    def siblings(self, owner: str, turn_id: str) -> list[Turn]:
        """The versions beside a turn (same parent), itself included, oldest first."""
        turn = self.turn(owner, turn_id)
        rows = self._all(
            "SELECT * FROM turns WHERE chat_id = ? AND parent_id IS ? ORDER BY seq",
            (turn.chat_id, turn.parent_id),
        )
        return [turn_of(row) for row in rows]

    def versions(self, owner: str, chat_id: str) -> dict[str, list[str]]:
        """Of each turn of a chat the ids of it and its siblings, oldest first."""
        self.chat(owner, chat_id)
        rows = self._all(
            "SELECT id, parent_id FROM turns WHERE chat_id = ? ORDER BY seq", (chat_id,)
        )
        beside: dict[str | None, list[str]] = {}
        for row in rows:
            beside.setdefault(row["parent_id"], []).append(str(row["id"]))
        return {turn_id: ids for ids in beside.values() for turn_id in ids}

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

    # --- inside --------------------------------------------------------------------------------

    def _newest_below(self, turn_id: str) -> str:
        """The last made turn of the subtree: every turn made last has nothing below it."""
        row = self._one(
            """WITH RECURSIVE down (id) AS (
                   SELECT ? UNION SELECT turns.id FROM turns JOIN down ON parent_id = down.id)
               SELECT turns.id FROM turns JOIN down ON turns.id = down.id ORDER BY seq DESC LIMIT 1""",
            (turn_id,),
        )
        return str(row["id"]) if row else turn_id


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)
