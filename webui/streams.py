"""Gradio's event streams over WebSockets, so that many tabs of one browser can be open at once.

Gradio holds one HTTP connection per open tab (heartbeat) and one more per running event, and a
browser allows six to a host over HTTP/1.1: the seventh tab would not even load. ``page.js`` opens
these streams here instead; where WebSockets do not get through it goes back to plain requests.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = "/streams"
# What may be asked for this way; the request then passes every check of the server as usual.
STREAMS = ("/gradio_api/heartbeat/", "/gradio_api/queue/data")
_HOP = (b"connection", b"upgrade")


class StreamsOverWebSocket:
    """ASGI middleware, outermost: a WebSocket in, a GET request to the app within, its body out."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Bridge our own path; everything else passes untouched."""
        if scope["type"] != "websocket" or not scope["path"].endswith(PATH):
            await self.app(scope, receive, send)
            return
        await receive()  # websocket.connect
        asked = urlsplit(parse_qs(scope["query_string"].decode()).get("to", [""])[0])
        if not any(asked.path.startswith(stream) for stream in STREAMS) or _is_foreign(scope):
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        await self._bridge(_as_get(scope, asked.path, asked.query), receive, send)

    async def _bridge(self, scope: Any, receive: Any, send: Any) -> None:
        gone = asyncio.Event()
        asked = False

        async def request() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def answer(message: dict[str, Any]) -> None:
            if gone.is_set():
                raise OSError("the page is gone")
            if message["type"] == "http.response.start":
                kinds = [v.decode() for k, v in message["headers"] if k.lower() == b"content-type"]
                start = {"status": message["status"], "type": "".join(kinds[:1])}
                await send({"type": "websocket.send", "text": json.dumps(start)})
            elif message.get("body"):
                await send({"type": "websocket.send", "bytes": message["body"]})

        async def watch() -> None:
            while (await receive())["type"] != "websocket.disconnect":
                pass
            gone.set()

        watching = asyncio.create_task(watch())
        try:
            await self.app(scope, request, answer)
        except OSError:
            if not gone.is_set():
                raise
        finally:
            watching.cancel()
            if not gone.is_set():
                await send({"type": "websocket.close", "code": 1000})


def _is_foreign(scope: Any) -> bool:
    """Whether another site's page opened the socket: browsers do not ask before they let it."""
    headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
    origin = headers.get(b"origin", "")
    hosts = {headers.get(b"host", ""), headers.get(b"x-forwarded-host", "")} - {""}
    return bool(origin) and urlsplit(origin).netloc not in hosts


def _as_get(scope: Any, path: str, query: str) -> dict[str, Any]:
    """The handshake's scope as a GET of another path: same cookies, origin, host and client."""
    headers = [
        (key, value)
        for key, value in scope["headers"]
        if key.lower() not in _HOP and not key.lower().startswith(b"sec-websocket")
    ]
    root = scope.get("root_path", "")
    full = root + path if root and not path.startswith(root) else path
    return {
        **{k: v for k, v in scope.items() if k not in ("subprotocols", "extensions", "state")},
        "type": "http",
        # As uvicorn's own: Starlette then listens for the disconnect, and ends the stream at once.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https" if scope.get("scheme") == "wss" else "http",
        "path": full,
        "raw_path": full.encode(),
        "query_string": query.encode(),
        "headers": headers,
        **({"state": scope["state"]} if "state" in scope else {}),
    }
