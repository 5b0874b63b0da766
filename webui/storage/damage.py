"""Damaged rows, looked for at a server's start: mended where that loses nothing, else moved aside.

What a row was before stands in the table ``damaged``. A turn that others follow stays in its place,
empty, so that they keep theirs.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from typing import Any

from webui.records import CHAT, DAMAGED, LAST_TIME, TURN, mended
from webui.storage.aside import note_row, raw_row

_JSON = ("error_values", "statistics", "parameters")
# Values of the wrong kind inside sound JSON, as this program writes it. Whether they are wrong is
# told by reading them.
_SUSPICIOUS = (
    "NOT is_ids(CAST(answer_ids AS BLOB))",
    "statistics GLOB '*:[^-0-9]*'", "statistics GLOB '*[eE][0-9+]*'", "error_values GLOB '*\\u[dD]*'",
    """parameters GLOB '*"sampling":[^{]*'""", """parameters GLOB '*"num_beams":[^0-9]*'""",
)  # fmt: skip
_TEXTS = ("answer_ids", "chat_id", "question", "picture_id", "answer", "qformer_text", "tokenizer", "error",
          "error_code")  # fmt: skip


def mend_rows(db: sqlite3.Connection) -> int:
    """Look through all rows, in the caller's transaction. Foreign keys must be off.

    Returns how many faults were found.
    """
    steps = (
        _mend_chats,
        _mend_turns,
        _lost_chats,
        _lost_ways,
        _orphans,
        _lost_parents,
        _loops,
        _lost_leaves,
        _pictures,
    )
    return sum(step(db) for step in steps)


# --- values --------------------------------------------------------------------------------------


def _mend_chats(db: sqlite3.Connection) -> int:
    wrong = " OR ".join(
        [_no_id("id"), "typeof(owner) != 'text'", "NOT is_text(CAST(owner AS BLOB))",
         "typeof(title) != 'text'", "typeof(leaf_id) NOT IN ('text', 'null')",
         *map(_no_time, ("created", "updated"))]
    )  # fmt: skip
    rows = db.execute(f"SELECT rowid AS row_number, * FROM chats WHERE {wrong}").fetchall()
    for row in rows:
        values, faults = mended(row, CHAT)
        if "owner" in faults or "\ufffd" in values["owner"]:  # nobody can reach it
            _move(db, "chats", row["row_number"], "nobody's")
            continue
        if not _is_id(row["id"]):
            faults, values["id"] = [*{*faults, "id"}], secrets.token_hex(12)
        _rewrite(db, "chats", row["row_number"], values, faults)
    return len(rows)


def _mend_turns(db: sqlite3.Connection) -> int:
    wrong = " OR ".join(
        [_no_id("id"), *(f"typeof({name}) != 'text'" for name in _TEXTS), *map(_no_json, _JSON),
         *_SUSPICIOUS, _no_time("created"),
         "typeof(parent_id) NOT IN ('text', 'null')", "typeof(finish) NOT IN ('text', 'null')",
         "typeof(server) != 'text'", "typeof(size) != 'integer'"]
    )  # fmt: skip
    count = 0
    for row in db.execute(f"SELECT * FROM turns WHERE {wrong}").fetchall():
        values, faults = mended(row, TURN)
        if not _is_id(row["id"]):
            faults, values["id"] = [*{*faults, "id"}], secrets.token_hex(12)
        if values["finish"] == DAMAGED and row["finish"] != DAMAGED:
            faults.append("finish")
        if not isinstance(row["server"], str):
            values["server"] = ""
            faults.append("server")
        if not isinstance(row["size"], int):
            values["size"] = 0
            faults.append("size")
        if faults:  # SQLite is stricter about JSON than we need
            _rewrite(db, "turns", row["seq"], values, faults)
            count += 1
    return count


def _no_id(name: str) -> str:
    return f"typeof({name}) != 'text' OR {name} GLOB '*[^ -~]*' OR {name} = ''"


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and value != ""


def _no_time(name: str) -> str:
    return f"typeof({name}) NOT IN ('real', 'integer') OR {name} NOT BETWEEN 0 AND {LAST_TIME}"


def _no_json(name: str) -> str:
    return (
        f"CASE WHEN typeof({name}) != 'text' THEN 1 WHEN NOT json_valid({name}) THEN 1"
        f" ELSE json_type({name}) != 'object' END"
    )


# --- places --------------------------------------------------------------------------------------


def _lost_chats(db: sqlite3.Connection) -> int:
    """Chats whose id is not the one that their turns name: their leaf tells it."""
    rows = db.execute(
        """SELECT chats.rowid AS row_number, min(turns.chat_id) AS meant FROM chats
           JOIN turns ON turns.id = chats.leaf_id WHERE turns.chat_id NOT IN (SELECT id FROM chats)
           AND NOT EXISTS (SELECT 1 FROM turns AS own WHERE own.chat_id = chats.id)
           GROUP BY turns.chat_id HAVING count(*) = 1"""
    ).fetchall()
    for row in rows:
        raw = raw_row(db, "chats", row["row_number"])
        note_row(db, "chats.id", "not the id that its turns name", raw)
        db.execute("UPDATE chats SET id = ? WHERE rowid = ?", (row["meant"], row["row_number"]))
    return len(rows)


def _lost_ways(db: sqlite3.Connection) -> int:
    """Turns whose chat is not there, but whose parent's or whose child's is: it is the same."""
    rows = db.execute(
        """SELECT turns.seq, near.chat_id AS meant FROM turns
           JOIN turns AS near ON near.id = turns.parent_id OR near.parent_id = turns.id
           WHERE turns.chat_id NOT IN (SELECT id FROM chats)
           AND near.chat_id IN (SELECT id FROM chats) GROUP BY turns.seq"""
    ).fetchall()
    for row in rows:
        note_row(db, "turns.chat_id", "there is no such chat", raw_row(db, "turns", row["seq"]))
        db.execute("UPDATE turns SET chat_id = ? WHERE seq = ?", (row["meant"], row["seq"]))
    return len(rows)


def _orphans(db: sqlite3.Connection) -> int:
    """Turns whose chat is not there: whose they are is not known, so nobody is shown them."""
    rows = db.execute(
        "SELECT seq FROM turns WHERE chat_id NOT IN (SELECT id FROM chats)"
    ).fetchall()
    for row in rows:
        _move(db, "turns", row["seq"], "its chat is not there")
    return len(rows)


def _lost_parents(db: sqlite3.Connection) -> int:
    """Turns whose parent is not in their chat: an empty turn takes the parent's place."""
    rows = db.execute(
        """SELECT seq, chat_id, parent_id FROM turns WHERE parent_id IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM turns AS up WHERE up.id = turns.parent_id AND up.chat_id = turns.chat_id)"""
    ).fetchall()
    places: dict[tuple[str, str], str] = {}
    for row in rows:
        lost = (row["chat_id"], row["parent_id"])
        if lost not in places:
            places[lost] = _empty_turn(db, row["chat_id"])
        note_row(
            db, "turns.parent_id", "its parent is not in its chat", raw_row(db, "turns", row["seq"])
        )
        db.execute("UPDATE turns SET parent_id = ? WHERE seq = ?", (places[lost], row["seq"]))
    return len(rows)


def _loops(db: sqlite3.Connection) -> int:
    """Turns that are their own ancestors: the oldest of each loop becomes a root."""
    count = 0
    while True:
        rows = db.execute(
            """WITH RECURSIVE reached (id) AS (SELECT id FROM turns WHERE parent_id IS NULL
                   UNION SELECT turns.id FROM turns JOIN reached ON turns.parent_id = reached.id)
               SELECT seq, id, parent_id FROM turns WHERE id NOT IN reached ORDER BY seq"""
        ).fetchall()
        if not rows:
            return count
        above = {row["id"]: row["parent_id"] for row in rows}
        at = rows[0]["id"]
        for _ in above:  # from any of them upwards one comes into the loop
            at = above[at]
        loop = {at}
        while (at := above[at]) not in loop:
            loop.add(at)
        first = next(row for row in rows if row["id"] in loop)
        note_row(db, "turns.parent_id", "a loop of parents", raw_row(db, "turns", first["seq"]))
        db.execute("UPDATE turns SET parent_id = NULL WHERE seq = ?", (first["seq"],))
        count += 1


def _lost_leaves(db: sqlite3.Connection) -> int:
    """Chats that show a turn which is not theirs: they show their newest."""
    rows = db.execute(
        """SELECT rowid AS row_number, id FROM chats WHERE leaf_id IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM turns WHERE turns.id = leaf_id AND turns.chat_id = chats.id)"""
    ).fetchall()
    for row in rows:
        note_row(
            db, "chats.leaf_id", "not a turn of this chat", raw_row(db, "chats", row["row_number"])
        )
        db.execute(
            "UPDATE chats SET leaf_id = (SELECT id FROM turns WHERE chat_id = chats.id"
            " ORDER BY seq DESC LIMIT 1) WHERE id = ?",
            (row["id"],),
        )
    return len(rows)


def _pictures(db: sqlite3.Connection) -> int:
    """Rows about pictures that are no such rows; what a turn still says of a picture stays."""
    wrong = {
        "pictures": "typeof(id) != 'text' OR typeof(mime) != 'text'"
        " OR mime NOT IN ('image/png', 'image/jpeg')",
        "picture_owners": "typeof(picture_id) != 'text' OR typeof(owner) != 'text'"
        " OR typeof(size) != 'integer' OR " + _no_time("created"),
    }
    count = 0
    for table, condition in wrong.items():
        rows = db.execute(f"SELECT rowid AS row_number FROM {table} WHERE {condition}").fetchall()
        for row in rows:
            _move(db, table, row["row_number"], "not what such a row is")
        count += len(rows)
    return count


# --- inside --------------------------------------------------------------------------------------


def _move(db: sqlite3.Connection, table: str, rowid: int, why: str) -> None:
    note_row(db, table, why, raw_row(db, table, rowid))
    db.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))


def _rewrite(
    db: sqlite3.Connection, table: str, rowid: int, values: dict[str, Any], faults: list[str]
) -> None:
    note_row(db, f"{table}.{','.join(faults)}", "cannot be read", raw_row(db, table, rowid))
    for name in faults:
        value = values[name]
        if isinstance(value, tuple | dict):
            value = json.dumps(value)
        db.execute(f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (value, rowid))


def _empty_turn(db: sqlite3.Connection, chat_id: str) -> str:
    """A turn that stands for one that is lost, older than all others, with an id of its own."""
    turn_id = secrets.token_hex(12)
    db.execute(
        "INSERT INTO turns (seq, id, chat_id, question, picture_id, finish, created)"
        " VALUES ((SELECT min(0, ifnull(min(seq), 0)) - 1 FROM turns), ?, ?, '', '', ?, ?)",
        (turn_id, chat_id, DAMAGED, time.time()),
    )
    return turn_id
