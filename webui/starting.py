"""The server answers before the model is there: a page that says so, and opens the real one itself."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from webui.asgi.front import canonical

_WORDS = {
    "en": "The model is being loaded. The page opens by itself.",
    "zh": "正在加载模型，页面会自动打开。",
}


class Starting:
    """ASGI app that stands in for the real one until that is made, and hands everything on then.

    Args:
        load: does what takes long; runs in a thread of its own.
        make: makes the real app of what ``load`` returned; runs on the event loop.
        ready: called with both when the real app answers.
        stop: called when it never will; ``error`` says why.
        root: the path prefix behind a proxy.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        make: Callable[[Any], Any],
        ready: Callable[[Any, Any], None],
        stop: Callable[[], None],
        root: str = "",
    ) -> None:
        self._load, self._make, self._ready, self._stop = load, make, ready, stop
        self._root = root
        self._app: Any = None
        self._over = asyncio.Event()  # loaded, failed, or told to stop
        self.loading = True
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """A page and a state of health while loading; everything else waits for the real app."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if self._app is None and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path = canonical(scope["path"], self._root)
            accepted, language = _headers(scope)
            if path == "/healthz":
                await _answer(send, 503, "application/json", json.dumps({"ok": False}))
                return
            if path == "/" and "text/html" in accepted:
                await _answer(send, 200, "text/html; charset=utf-8", _page(language))
                return
        await self._over.wait()
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013})
        else:
            await _answer(send, 503, "text/plain", "The server is stopping.")

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()  # lifespan.startup
        await send({"type": "lifespan.startup.complete"})
        told = asyncio.ensure_future(receive())  # lifespan.shutdown
        loaded = _in_thread(self._load)
        try:
            await asyncio.wait({told, loaded}, return_when=asyncio.FIRST_COMPLETED)
            if loaded.done():
                self.loading = False
                result = await loaded
                app = self._make(result)
                await self._hand_over(app, lambda: self._ready(result, app), scope, told, send)
                return
        except Exception as error:
            self.error = error
            self._stop()
        finally:
            self._over.set()
        await told
        await send({"type": "lifespan.shutdown.complete"})

    async def _hand_over(
        self, app: Any, ready: Callable[[], None], scope: Any, told: Any, send: Any
    ) -> None:
        """Give the real app the life of the server, from its own start on."""
        started = False

        async def receive() -> Any:
            if not started:
                return {"type": "lifespan.startup"}
            return await told

        async def say(message: Any) -> None:
            nonlocal started
            if message["type"] == "lifespan.startup.failed":
                raise RuntimeError(message.get("message") or "the page did not start")
            if message["type"] != "lifespan.startup.complete":
                await send(message)
                return
            started = True
            self._app = app
            self._over.set()
            ready()

        await app(scope, receive, say)


def _in_thread(work: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = (work(), None)
        except BaseException as error:
            outcome = (None, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return future


def _headers(scope: Any) -> tuple[str, str]:
    values = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
    return values.get(b"accept", ""), values.get(b"accept-language", "")[:2].lower()


async def _answer(send: Any, status: int, kind: str, words: str) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"frame-ancestors 'self'"),
    ]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


def _page(language: str) -> str:
    language = language if language in _WORDS else "en"
    return f"""<!doctype html><html lang="{language}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>InstructBLIP</title>
<meta http-equiv="refresh" content="1"><style>:root{{color-scheme:light dark}}
body{{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;display:grid;place-items:center;
min-height:90vh;margin:0}}</style><p role="status">{_WORDS[language]}</p></html>"""
