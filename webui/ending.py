"""The server's last second: open streams are ended properly, not torn off."""

from __future__ import annotations

import asyncio
from typing import Any

_PAUSE = 0.25  # seconds that answers under way get


class Ending:
    """ASGI wrapper, outermost. Open pages hold event streams for ever; :meth:`end` ends them.

    Left to uvicorn, each would delay the end by its whole patience and then fill the terminal with
    the traceback of a cancelled task.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._streams: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ending = False

    def end(self) -> None:
        """End the streams soon. Safe from a signal handler and any thread."""
        self.ending = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.call_later, _PAUSE, self._cancel)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on; when the end cuts a request short, complete its answer."""
        self._loop = asyncio.get_running_loop()
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = over = False

        async def watched(message: Any) -> None:
            nonlocal started, over
            started = started or message["type"] == "http.response.start"
            over = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        if scope["method"] == "GET":
            self._streams.add(task)
        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if not self.ending:
                raise
            task.uncancel()
            if not started:
                headers = [(b"retry-after", b"5"), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 503, "headers": headers})
            if not over:
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._streams.discard(task)

    def _cancel(self) -> None:
        for task in self._streams:
            task.cancel()
