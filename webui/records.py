"""What the store hands out: chats and turns, as plain records.

A row may be damaged: what can be read of it is handed out, and what cannot is the column's default.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from instructblip.errors import UnknownTurn
from instructblip.texts import one_line, storable
from webui.pictures import is_picture_id

TITLE_LENGTH = 60
DAMAGED = "damaged"  # the finish of a turn whose question cannot be read
LARGEST_ID = 2**31  # of a token
LAST_TIME = 32503680000.0  # the year 3000, in seconds; beyond it dates cannot be made
_FINISH = re.compile(r"[a-z_]{1,40}\Z")


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

    @property
    def readable(self) -> bool:
        """Whether its question can be read; of one that cannot, nothing can be asked again."""
        return self.finish != DAMAGED


def chat_of(row: sqlite3.Row) -> Chat:
    """The chat in a row, damaged or not."""
    values, _ = mended(row, CHAT)
    return Chat(**values)


def turn_of(row: sqlite3.Row) -> Turn:
    """The turn in a row, damaged or not."""
    values, _ = mended(row, TURN)
    return Turn(**values)


def lost_turn(chat_id: str, turn_id: str = "") -> Turn:
    """What stands in the place of a turn that is not there although others follow it."""
    return Turn(turn_id, chat_id, None, "", "", "", (), "", "", DAMAGED, "", {}, 0.0)


def mended(
    row: sqlite3.Row | Mapping[str, Any], columns: Mapping[str, Callable[[Any], Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The values of a row as they are meant, and the names of those that could not be read."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, read in columns.items():
        try:
            values[name] = read(row[name])
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            values[name] = error.args[0] if isinstance(error, _Mended) else _DEFAULTS[read]()
            faults.append(name)
    if "question" in faults and row["question"] is None:
        values["finish"] = DAMAGED
    return values, faults


class _Mended(ValueError):
    """A value was damaged, but part of it could be read: its first argument."""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        raise _Mended(value.decode("utf-8", "replace"))
    raise _Mended("" if value is None else str(value))


def _id(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _Mended("")


def _id_or_none(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise ValueError(value)


def _picture(value: Any) -> str:
    if value == "" or is_picture_id(value):
        return str(value)
    raise _Mended("")


def _finish(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and _FINISH.match(value)):
        return value
    raise _Mended("interrupted")


def _time(value: Any) -> float:
    if isinstance(value, int | float) and 0 <= value <= LAST_TIME:
        return float(value)
    raise ValueError(value)


def _ids(value: Any) -> tuple[int, ...]:
    found = json.loads(value)
    if not isinstance(found, list) or set(map(type, found)) - {int}:
        raise ValueError(value)
    if not found or (min(found) >= 0 and max(found) < LARGEST_ID):
        return tuple(found)
    raise ValueError(value)


def _numbers(value: Any) -> dict[str, float]:
    found = _table(value)
    sound = {
        key: number
        for key, number in found.items()
        if isinstance(number, int | float) and math.isfinite(number) and abs(number) < 1e15
    }
    if len(sound) < len(found):
        raise _Mended(sound)
    return sound


def _table(value: Any) -> dict[str, Any]:
    found = _encodable(json.loads(value))
    if isinstance(found, dict):
        return found
    raise ValueError(value)


def _plain_table(value: Any) -> dict[str, Any]:
    json.loads(value, parse_constant=_no_constant)
    return _table(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parameters(value: Any) -> dict[str, Any]:
    found = _plain_table(value)
    sampling = found.get("sampling", {})
    if isinstance(sampling, dict) and type(sampling.get("num_beams", 1)) is int:
        return found
    raise _Mended({key: found[key] for key in found if key != "sampling"})


def _encodable(value: Any) -> Any:
    """JSON can spell half a surrogate pair, which no page can be sent with."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, dict):
        return {storable(key): _encodable(each) for key, each in value.items()}
    return value


_DEFAULTS: dict[Callable[[Any], Any], Callable[[], Any]] = {
    _id_or_none: lambda: None, _time: float, _ids: tuple, _numbers: dict, _plain_table: dict,
    _parameters: dict,
}  # fmt: skip

CHAT: dict[str, Callable[[Any], Any]] = {
    "id": _id, "owner": _id, "title": _text, "leaf_id": _id_or_none, "created": _time,
    "updated": _time,
}  # fmt: skip
TURN: dict[str, Callable[[Any], Any]] = {
    "id": _id, "chat_id": _id, "parent_id": _id_or_none, "question": _text,
    "picture_id": _picture, "answer": _text, "answer_ids": _ids, "qformer_text": _text,
    "tokenizer": _text, "finish": _finish, "error": _text, "statistics": _numbers,
    "created": _time, "error_code": _text, "error_values": _plain_table, "parameters": _parameters,
}  # fmt: skip


def title_of(question: str) -> str:
    """A chat's title until somebody renames it: the start of its first question, on one line."""
    line = one_line(question)
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def unknown(kind: str, wanted: str) -> UnknownTurn:
    """What to raise for a ``kind`` (chat, turn, picture) that is absent or somebody else's."""
    shown = storable(str(wanted)[:40])
    return UnknownTurn(
        f"There is no {kind} {shown!r} here. It may have been deleted; reload the page.",
        code=f"unknown_{kind}",
        id=shown,
    )
