"""What is moved aside: rows into the table ``damaged``, files into ``<data>/damaged/<time>``."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from webui.storage.modes import FOLDER, make_private


def aside_folder(data: Path) -> Path:
    """A new folder for what is moved aside now: ``<data>/damaged/<time>``."""
    within = make_private(data / "damaged")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        folder = within / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(mode=FOLDER)
        except FileExistsError:
            continue
        break
    return folder


def note_row(db: sqlite3.Connection, place: str, why: str, content: Mapping[str, Any]) -> None:
    """Keep a row's content. ``place`` names its table and column; bytes are kept as base64."""
    db.execute(
        "INSERT INTO damaged (place, why, found, content) VALUES (?, ?, ?, ?)",
        (place, why[:1000], time.time(), json.dumps({k: _plain(v) for k, v in content.items()})),
    )


def raw_row(db: sqlite3.Connection, table: str, rowid: int) -> dict[str, Any]:
    """A row as it is in the file: texts that are no UTF-8 come as bytes."""
    names = [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]
    # Text comes as bytes, and would look like a blob: the type is asked for beside it.
    wanted = ", ".join(f"typeof({name}), {name}" for name in names)
    factory, db.text_factory = db.text_factory, bytes
    try:
        row = db.execute(f"SELECT {wanted} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
    finally:
        db.text_factory = factory
    if row is None:
        return {}
    return {
        name: _text(row[2 * at + 1]) if row[2 * at] == b"text" else row[2 * at + 1]
        for at, name in enumerate(names)
    }


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
