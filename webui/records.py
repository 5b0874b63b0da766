"""What the store hands out: chats and turns, as plain records."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from instructblip.errors import UnknownTurn

TITLE_LENGTH = 60


@dataclass(frozen=True)
class Chat:
    """One conversation; ``leaf_id`` is the turn that the page shows last."""

    id: str
    owner: str
    title: str
    leaf_id: str | None
    created: float
    updated: float


@dataclass(frozen=True)
class Turn:
    """A question about a picture and its answer; ``finish`` is None while it is being written."""

    id: str
    chat_id: str
    parent_id: str | None
    question: str
    picture_id: str
    answer: str
    answer_ids: tuple[int, ...]
    qformer_text: str
    tokenizer: str
    finish: str | None
    error: str
    statistics: dict[str, float]
    created: float
    error_code: str = ""
    error_values: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)  # sampling and layout, as asked


def chat_of(row: sqlite3.Row) -> Chat:
    return Chat(
        **{key: row[key] for key in ("id", "owner", "title", "leaf_id", "created", "updated")}
    )


def turn_of(row: sqlite3.Row) -> Turn:
    values = {key: row[key] for key in tuple(row.keys()) if key != "seq"}
    values["answer_ids"] = tuple(json.loads(values["answer_ids"]))
    for key in ("statistics", "parameters", "error_values"):
        values[key] = json.loads(values[key])
    return Turn(**values)


def title_of(question: str) -> str:
    """A chat's title until somebody renames it: the start of its first question, on one line."""
    line = " ".join(question.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: half a surrogate pair, cut by a browser, becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def unknown(kind: str, wanted: str) -> UnknownTurn:
    """What to raise for a ``kind`` (chat, turn, picture) that is absent or somebody else's."""
    shown = storable(str(wanted)[:40])
    return UnknownTurn(
        f"There is no {kind} {shown!r} here. It may have been deleted; reload the page.",
        code=f"unknown_{kind}",
        id=shown,
    )
