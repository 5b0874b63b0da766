"""A store, an engine and runs put together, and engines that fail in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slow_engine import SlowEngine

from instructblip.engine.base import Delta, Phase, Request
from tests.tiny_picture import picture
from webui.records import Turn
from webui.runs import Run, Runs, Snapshot
from webui.store import Store


@dataclass
class Talk:
    """What a page does, without a page."""

    store: Store
    runs: Runs

    def turn(
        self,
        words: str,
        *,
        owner: str = "a-1",
        after: Turn | None = None,
        chat: str | None = None,
        data: bytes = b"",
    ) -> Turn:
        """A stored question in a new chat, in ``chat``, or below ``after``."""
        chat_id = after.chat_id if after else chat or self.store.new_chat(owner).id
        picture_id = self.store.add_picture(owner, data or picture())
        return self.store.add_turn(owner, chat_id, after.id if after else None, words, picture_id)

    async def ask(self, words: str, *, owner: str = "a-1", **where: Any) -> Run:
        """Store and submit a question."""
        return await self.runs.start(owner, self.turn(words, owner=owner, **where))

    def kept(self, run: Run) -> Turn:
        """The turn as it is stored now."""
        return self.store.turn(run.owner, run.turn_id)

    async def answer(self, words: str, **where: Any) -> Turn:
        """Ask, look on to the end, and read what was stored."""
        run = await self.ask(words, **where)
        await follow(run)
        return self.kept(run)


async def follow(run: Run) -> list[Snapshot]:
    """What a page that stays is shown."""
    return [snapshot async for snapshot in run.attach(heartbeat=0.05)]


async def look(run: Run, until: Callable[[Snapshot], bool] = lambda _: True) -> Snapshot:
    """Attach until something is seen, then leave, as a closed tab does."""
    looking = run.attach(heartbeat=0.05)
    try:
        async for snapshot in looking:
            if until(snapshot) or snapshot.finish is not None:
                return snapshot
    finally:
        await looking.aclose()  # type: ignore[attr-defined]
    raise AssertionError("an attachment ended without an end")


async def ended(run: Run) -> None:
    """Wait for the end without being attached, as nobody is."""
    while not run.done:
        await asyncio.sleep(0.01)


class BrokenStream:
    """Says one word; then ``then`` is raised, or it ends, or ends as ``then`` says."""

    def __init__(self, request: Request, then: BaseException | Delta | None) -> None:
        self.request_id = request.request_id
        self.cancelled = False
        self._then = then

    def cancel(self) -> None:
        """Remember it."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Delta]:
        raise NotImplementedError

    async def __aiter__(self) -> AsyncIterator[Delta]:
        yield Delta(self.request_id, Phase.DECODE, text="Half", token_ids=(7,))
        if isinstance(self._then, BaseException):
            raise self._then
        if self._then is not None:
            yield self._then


class DeafStream(BrokenStream):
    """Says a word and then never anything, whoever asks it to stop."""

    async def __aiter__(self) -> AsyncIterator[Delta]:
        yield Delta(self.request_id, Phase.DECODE, text="Half", token_ids=(7,))
        await asyncio.Event().wait()


class BrokenEngine(SlowEngine):
    """Answers ``break`` with a broken stream, everything else as it should."""

    def __init__(self, then: BaseException | Delta | None, kind: type[BrokenStream] = BrokenStream):
        super().__init__(0.002, 2)
        self.then, self.kind = then, kind
        self.broken: list[BrokenStream] = []

    def submit(self, request: Request) -> Any:
        """As the question says."""
        if request.question != "break":
            return super().submit(request)
        self.broken.append(self.kind(request, self.then))
        return self.broken[-1]
