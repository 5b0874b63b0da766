"""Damage to a data folder, as disks, editors and half-understood scripts do it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from tests.tiny_picture import picture
from webui.store import Store

OWNER, OTHER = "a-" + "1" * 32, "a-" + "2" * 32
QUESTIONS = [f"Question {number}?" for number in range(4)]


def chat_with_turns(store: Store, owner: str = OWNER, count: int = 4) -> list[str]:
    """A chat of finished turns, each below the one before; their ids, the first is the root."""
    chat, ids = store.new_chat(owner), []
    for number in range(count):
        picture_id = store.add_picture(owner, picture((20 * number, 30, 30)))
        parent = ids[-1] if ids else None
        turn = store.add_turn(owner, chat.id, parent, f"Question {number}?", picture_id)
        store.finish_turn(
            turn.id, finish="stop", answer=f"Answer {number}.", answer_ids=[1, 2, number],
            qformer_text=turn.question, tokenizer="words", statistics={"new_tokens": 3.0},
        )  # fmt: skip
        ids.append(turn.id)
    return ids


def open_file(folder: Path) -> sqlite3.Connection:
    """The database with nothing in the way: no foreign keys, and no column asks for a value."""
    db = sqlite3.connect(folder / "chats.sqlite3", isolation_level=None)
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table'")
    db.execute("PRAGMA writable_schema = RESET")
    return db


def set_cell(folder: Path, table: str, column: str, rowid: int, value: Any) -> None:
    """Write one value as it is; ``cast`` bytes are meant as text that is no UTF-8."""
    db = open_file(folder)
    if isinstance(value, Broken):
        db.execute(
            f"UPDATE OR IGNORE {table} SET {column} = CAST(? AS TEXT) WHERE rowid = ?",
            (bytes(value), rowid),
        )
    else:
        db.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
    db.close()


class Broken(bytes):
    """Text that is no UTF-8."""


def set_aside(folder: Path) -> list[tuple[str, str]]:
    """What stands in the table of damaged rows: place and content."""
    db = sqlite3.connect(folder / "chats.sqlite3")
    rows = db.execute("SELECT place, content FROM damaged ORDER BY id").fetchall()
    db.close()
    return rows
