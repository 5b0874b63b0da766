"""Gradio's event streams over WebSockets, so that many tabs of one browser can be open at once.

Gradio holds one HTTP connection per open tab (heartbeat) and one more per running event, and a
browser allows six to a host over HTTP/1.1: the seventh tab would not even load. ``page.js`` opens
these streams here instead; where WebSockets do not get through it goes back to plain requests.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from webui.asgi.front import canonical
from webui.asgi.place import Place
from webui.asgi.routes import GRADIO
from webui.asgi.routes import STREAMS as PATH

# What may be asked for this way; the request then passes every check of the server as usual.
STREAMS = (f"{GRADIO}/heartbeat/", f"{GRADIO}/queue/data")
_HOP = (b"connection", b"upgrade")


class StreamsOverWebSocket:
    """ASGI middleware, outside the guard: a WebSocket in, a GET request to the app within, its body out."""

    def __init__(self, app: Any, place: Place) -> None:
        self.app, self._place = app, place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Bridge our own path; everything else passes untouched."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        await receive()  # websocket.connect
        asked = _asked(scope)
        if asked is None or self._place.refuse(scope) is not None:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        await self._bridge(_as_get(scope, *asked), receive, send)

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


def _asked(scope: Any) -> tuple[str, str] | None:
    """The path and query of the stream that a socket is for."""
    if scope["path"] != PATH:
        return None
    try:
        asked = urlsplit(parse_qs(scope["query_string"].decode()).get("to", [""])[0])
    except ValueError:
        return None
    path = canonical(asked.path)
    if asked.scheme or asked.netloc or path is None:
        return None
    return (path, asked.query) if path.startswith(STREAMS) else None


def _as_get(scope: Any, path: str, query: str) -> dict[str, Any]:
    """The handshake's scope as a GET of another path: same cookies, origin, host and client."""
    headers = [
        (key, value)
        for key, value in scope["headers"]
        if key.lower() not in _HOP and not key.lower().startswith(b"sec-websocket")
    ]
    return {
        **{k: v for k, v in scope.items() if k not in ("subprotocols", "extensions", "state")},
        "type": "http",
        # As uvicorn's own: Starlette then listens for the disconnect, and ends the stream at once.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https" if scope.get("scheme") == "wss" else "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "headers": headers,
        **({"state": scope["state"]} if "state" in scope else {}),
    }
