"""The page as Gradio renders it, kept: only its address stands in it, and each takes it 6 ms."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

PATHS = ("/", "/config")
_KEPT = 8  # of 0.1 MB; a server has few addresses
_OF_THE_ASKER = (b"content-encoding", b"set-cookie", b"vary")  # headers of what is one asker's

Messages = tuple[dict[str, Any], dict[str, Any]]  # start and body


class RenderedPage:
    """ASGI middleware, within the guard: answers the page and its configuration from what is kept.

    Nothing of a visitor or of a query may be in what the app within answers to these paths; an
    answer whose headers say that it depends on the asker is not kept.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._kept: OrderedDict[tuple[str, bytes, str], Messages] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Everything but GET and HEAD of these paths passes untouched."""
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self.app(scope, receive, send)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        key = (scope.get("scheme", "http"), host, scope["path"])
        if scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif key in self._kept:
            self._kept.move_to_end(key)
            start, body = self._kept[key]
            await send({**start, "headers": list(start["headers"])})
            await send(dict(body) if scope["method"] == "GET" else {**body, "body": b""})
        elif scope["method"] == "HEAD":
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, _Keeping(self, key, send).send)

    def keep(self, key: tuple[str, bytes, str], answer: Messages) -> None:
        """Keep a whole answer; the one that was not asked for the longest goes."""
        self._kept[key] = answer
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


class _Keeping:
    """Hands an answer on, and keeps it once it has come whole."""

    def __init__(self, page: RenderedPage, key: tuple[str, bytes, str], send: Any) -> None:
        self._page, self._key, self._send = page, key, send
        self._start: dict[str, Any] = {}
        self._body = b""

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = {**message, "headers": list(message["headers"])}
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if self._is_everybodys() and not message.get("more_body", False):
                body = {"type": message["type"], "body": self._body, "more_body": False}
                self._page.keep(self._key, (self._start, body))
        await self._send(message)

    def _is_everybodys(self) -> bool:
        names = {name.lower() for name, _ in self._start["headers"]}
        return self._start["status"] == 200 and names.isdisjoint(_OF_THE_ASKER)
