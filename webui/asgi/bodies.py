"""The body of an event, read once at the edge: what goes on is made anew from what was checked.

Gradio moves every file object of every input into its cache, text boxes included, and fetches those
whose path is an address. So a file object, wherever it stands, is exactly an upload of its sender.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from instructblip.errors import BadRequest, UnknownTurn
from instructblip.texts import MAX_TEXT, checked
from webui.asgi.routes import SESSION

__all__ = ["MAX_TEXT", "bad", "read_event"]

_MOST_INPUTS = 64
_MOST_VALUES = 4096  # in one body; a page sends some hundred
_DEPTH = 12
_FILE_KEYS = ("path", "url", "meta")
_META = {"_type": "gradio.FileData"}


def read_event(body: bytes, owns: Callable[[str], bool]) -> tuple[dict[str, Any], str]:
    """An event's checked body, and the tab (session hash) that it is of.

    Args:
        body: JSON as Gradio's page sends it.
        owns: whether a path is exactly an upload of the sender.

    Raises:
        BadRequest: it is no such body (``bad_event``), or a text is too long (``text_too_long``).
        UnknownTurn: ``upload_foreign``: a file object is not the sender's upload.
    """
    if _count_values(body) > _MOST_VALUES:
        raise bad("it has too many values")
    try:
        given = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise bad("it is not JSON") from error
    if not isinstance(given, dict):
        raise bad("it is not an object")
    session, data = given.get("session_hash"), given.get("data")
    if not isinstance(session, str) or not SESSION.match(session):
        raise bad("session_hash")
    if given.get("event_id") is not None:  # events get their ids from the server
        raise bad("event_id")
    if not isinstance(data, list) or len(data) > _MOST_INPUTS:
        raise bad("data")
    return {
        "session_hash": session,
        "fn_index": _number(given, "fn_index"),
        "trigger_id": _number(given, "trigger_id"),
        "data": [_checked(value, owns, _DEPTH) for value in data],
        "event_data": _checked(given.get("event_data"), owns, _DEPTH),
    }, session


def _count_values(body: bytes) -> int:
    """About how many values a body has, told without making them: a megabyte of tiny ones would
    take the server's loop for a fifth of a second."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    strings = plain.count(b'"') // 2
    if strings > _MOST_VALUES:
        return strings
    outside = plain.split(b'"')[::2]
    return sum(part.count(sign) for part in outside for sign in (b",", b"[", b"{"))


def _number(given: dict[str, Any], key: str) -> int | None:
    value = given.get(key)
    if value is None or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    ):
        return value
    raise bad(key)


def _checked(value: Any, owns: Callable[[str], bool], depth: int) -> Any:
    """The value with every file object checked, and every text."""
    if depth == 0:
        raise bad("it is nested too deeply")
    if isinstance(value, str):
        return checked(value)
    if isinstance(value, list):
        return [_checked(item, owns, depth - 1) for item in value]
    if isinstance(value, dict):
        if any(key in value for key in _FILE_KEYS):
            return _file(value, owns)
        return {checked(str(k)): _checked(v, owns, depth - 1) for k, v in value.items()}
    return value


def _file(value: dict[str, Any], owns: Callable[[str], bool]) -> dict[str, Any]:
    path = value.get("path")
    if not isinstance(path, str) or not owns(path):
        raise UnknownTurn(
            "This file was not uploaded by you, or is no longer there. Choose the picture again.",
            code="upload_foreign",
        )
    name = value.get("orig_name")
    return {
        "path": path,
        "orig_name": checked(name[:255]) if isinstance(name, str) else None,
        "meta": dict(_META),
    }


def bad(what: str) -> BadRequest:
    """The error for a body that no page sends."""
    return BadRequest(
        f"This request is not one that the page sends ({what}). Reload the page.",
        code="bad_event",
        what=what,
    )
