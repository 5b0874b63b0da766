"""Streams that stay open for as long as a page does, bounded apart from ordinary requests.

A heartbeat only tells that a tab is there: the oldest of those who ask for nothing makes room, and
its page goes on. A stream of events carries an answer: those are never ended for others.

Of the total a newcomer takes from newcomers alone, whoever has answers here from all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse

from instructblip.errors import Busy
from webui.bounds import Bound, Client

OWNER = 64  # heartbeats, and streams of events, of one visitor
_HEARTBEAT, _EVENTS = "/gradio_api/heartbeat/", "/gradio_api/queue/data"


class _Heartbeat:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.over = asyncio.Event()


class HeldStreams:
    """ASGI middleware, within the guard, which says whose a request is.

    Args:
        total: heartbeats, and as many streams of events, that all visitors may hold.
    """

    def __init__(self, app: Any, total: int) -> None:
        self.app = app
        self._total, self._address = total, max(total // 4, 1)
        self._events = Bound("streams", owner=OWNER, address=self._address, total=total)
        self._heartbeats: dict[_Heartbeat, None] = {}  # the oldest first

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what stays open; everything else passes."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        client = scope.get("instructblip.client") or Client("")
        try:
            if _HEARTBEAT in scope["path"]:
                await self._beat(client, scope, receive, send)
            elif scope["path"].endswith(_EVENTS):
                if client.known:  # since its page was opened, perhaps
                    self._promote(client)
                with self._events.holding(client):
                    await self.app(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except Busy as error:
            answer = JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})
            await answer(scope, receive, send)

    async def _beat(self, client: Client, scope: Any, receive: Any, send: Any) -> None:
        self._make_room(client)
        held = _Heartbeat(client)
        self._heartbeats[held] = None
        ended = _Ended(send)
        try:
            await self.app(scope, _until(held.over, receive), ended.send)
        finally:
            self._heartbeats.pop(held, None)
        if held.over.is_set():
            await ended.complete()

    def _promote(self, client: Client) -> None:
        for each in self._heartbeats:
            if each.client.owner == client.owner:
                each.client = client

    def _make_room(self, client: Client) -> None:
        """End the oldest heartbeat of who has too many.

        Raises:
            Busy: all are of visitors who have answers here, and this one has none.
        """
        clients = [each.client for each in self._heartbeats]
        there = client.address
        if sum(each.owner == client.owner for each in clients) >= OWNER:
            self._end_oldest(lambda each: each.owner == client.owner)
        elif there is not None and sum(each.address == there for each in clients) >= self._address:
            self._end_oldest(lambda each: each.address == there)
        elif len(clients) >= self._total:
            asking = self._events.of
            ended = self._end_oldest(lambda each: not each.known and not asking(each.owner))
            ended = ended or self._end_oldest(lambda each: client.known or not each.known)
            if not ended:
                raise Busy("The server is full (streams). Try again.", code="busy_streams_all")

    def _end_oldest(self, fits: Callable[[Client], bool]) -> bool:
        for each in self._heartbeats:
            if fits(each.client):
                each.over.set()
                del self._heartbeats[each]
                return True
        return False


class _Ended:
    """Completes an answer that was ended from here."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._started = self._complete = False

    async def send(self, message: Any) -> None:
        self._started = self._started or message["type"] == "http.response.start"
        if message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def complete(self) -> None:
        if self._started and not self._complete:
            await self._send({"type": "http.response.body", "body": b""})


def _until(over: asyncio.Event, receive: Any) -> Any:
    """``receive``, which tells of a disconnect once the event is set."""

    async def take() -> Any:
        told, asked = asyncio.ensure_future(over.wait()), asyncio.ensure_future(receive())
        try:
            await asyncio.wait({told, asked}, return_when=asyncio.FIRST_COMPLETED)
            return await asked if asked.done() else {"type": "http.disconnect"}
        finally:
            told.cancel()
            asked.cancel()

    return take
