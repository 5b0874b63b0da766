"""Small readers of ASGI scopes, and refusals in the asker's language."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Collection, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from webui.i18n import language_of, text

Headers = list[tuple[bytes, bytes]]


def header(scope: Any, name: bytes) -> str:
    """A request header's value, or an empty text."""
    return next((v.decode("latin-1") for k, v in scope["headers"] if k.lower() == name), "")


def cookies(scope: Any, name: str) -> list[str]:
    """All values of a cookie: another program under this host's name may have set one too."""
    lines = [v.decode("latin-1") for k, v in scope["headers"] if k.lower() == b"cookie"]
    pairs = [part.strip().partition("=") for line in lines for part in line.split(";")]
    return [value for key, _, value in pairs if key == name][:8]


def without(headers: Iterable[tuple[bytes, bytes]], names: Collection[bytes]) -> Headers:
    """The headers that have none of these names; names end with ``*`` for all that begin so."""
    starts = tuple(name[:-1] for name in names if name.endswith(b"*"))
    return [
        (key, value)
        for key, value in headers
        if key.lower() not in names and not (starts and key.lower().startswith(starts))
    ]


def language(scope: Any) -> str:
    """The language to answer this request in."""
    return language_of(Request({**scope, "type": "http"}))


def refusal(scope: Any, status: int, key: str, **values: object) -> Response:
    """An answer that says why not: a page where a browser asks for one, else JSON ``{"error": …}``."""
    words = text(language(scope), key, **values)
    headers = {"Cache-Control": "no-store"}
    if scope.get("method") == "GET" and "text/html" in header(scope, b"accept"):
        return HTMLResponse(shell(language(scope), f"<p>{html.escape(words)}</p>"), status, headers)
    return JSONResponse({"error": words}, status, headers)


def shell(language: str, body: str) -> str:
    """A whole small page around ``body``, for what is said outside of the chat page."""
    return f"""<!doctype html><html lang="{language}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>InstructBLIP</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;
display:grid;place-items:center;min-height:90vh;margin:0}}p{{max-width:36rem;padding:0 1rem}}</style>
{body}</html>"""


class Notices:
    """Warnings for the log that a stranger can cause: each kind once a minute, few kinds at once."""

    def __init__(self, log: logging.Logger, every: float = 60.0, kinds: int = 64) -> None:
        self._log, self._every, self._kinds = log, every, kinds
        self._said: dict[str, float] = {}

    def warn(self, kind: str, message: str, *values: object) -> None:
        """Log it unless this kind was just said. Values are shown without control characters."""
        now = time.monotonic()
        self._said = {k: at for k, at in self._said.items() if now - at < self._every}
        if kind in self._said or len(self._said) >= self._kinds:
            return
        self._said[kind] = now
        self._log.warning(
            message, *(printable(str(value)) for value in values), extra={"counted": True}
        )


def printable(words: str, most: int = 200) -> str:
    """A stranger's text as one short line of a log may hold it."""
    return "".join(c if c.isprintable() else "?" for c in words[:most])
