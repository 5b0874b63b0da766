"""Streams that stay open: whose makes room for whose."""

from __future__ import annotations

import asyncio
from typing import Any

from webui.asgi.held import OWNER, HeldStreams
from webui.bounds import Client

TOTAL = 8


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """As Gradio's: open until the client goes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while (await receive())["type"] != "http.disconnect":
        pass


class Crowd:
    """Streams that are open, by name."""

    def __init__(self, total: int = TOTAL) -> None:
        self.app = HeldStreams(stream, total)
        self.status: dict[str, int] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def open(self, name: str, client: Client, path: str = "/gradio_api/heartbeat/x") -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            self.status.setdefault(name, message.get("status", 0))

        scope = {"type": "http", "method": "GET", "path": path, "instructblip.client": client}
        self.tasks[name] = asyncio.create_task(self.app(scope, receive, send))
        for _ in range(10):
            await asyncio.sleep(0)

    def opened(self) -> set[str]:
        return {name for name, task in self.tasks.items() if not task.done()}

    def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()


EVENTS = "/gradio_api/queue/data"


def test_a_newcomer_each_time_pushes_out_newcomers_alone() -> None:
    async def run() -> None:
        crowd = Crowd()
        await crowd.open("friend", Client("friend", None, True))
        await crowd.open("asking", Client("asking"))
        await crowd.open("answer", Client("asking"), EVENTS)
        for number in range(50):
            await crowd.open(f"h{number}", Client(f"h{number}"))
        assert crowd.opened() == {"friend", "asking", "answer"} | {f"h{n}" for n in range(44, 50)}
        await crowd.open("visitor", Client("visitor"))
        assert crowd.status["visitor"] == 200
        crowd.end()

    asyncio.run(run())


def test_who_has_had_an_answer_meanwhile_is_no_newcomer() -> None:
    async def run() -> None:
        crowd = Crowd()
        await crowd.open("page", Client("ann"))
        await crowd.open("answer", Client("ann", None, True), EVENTS)
        crowd.tasks["answer"].cancel()
        for number in range(20):
            await crowd.open(f"h{number}", Client(f"h{number}"))
        assert "page" in crowd.opened()
        crowd.end()

    asyncio.run(run())


def test_among_friends_a_newcomer_waits() -> None:
    async def run() -> None:
        crowd = Crowd()
        for number in range(TOTAL):
            await crowd.open(f"f{number}", Client(f"f{number}", None, True))
        await crowd.open("newcomer", Client("newcomer"))
        assert crowd.status["newcomer"] == 503
        await crowd.open("friend", Client("friend", None, True))
        assert "f0" not in crowd.opened()
        assert crowd.status["friend"] == 200
        crowd.end()

    asyncio.run(run())


def test_one_owner_and_one_address_make_room_for_themselves() -> None:
    async def run() -> None:
        crowd = Crowd(total=1000)
        for number in range(OWNER + 5):
            await crowd.open(f"a{number}", Client("ann"))
        assert len(crowd.opened()) == OWNER
        assert "a4" not in crowd.opened()
        for number in range(300):
            await crowd.open(f"b{number}", Client(f"b{number}", "192.0.2.1"))
        assert sum(name.startswith("b") for name in crowd.opened()) == 250
        assert sum(name.startswith("a") for name in crowd.opened()) == OWNER
        crowd.end()

    asyncio.run(run())


def test_answers_are_refused_not_ended() -> None:
    async def run() -> None:
        crowd = Crowd(total=1000)
        for number in range(OWNER + 1):
            await crowd.open(f"a{number}", Client("ann", None, True), EVENTS)
        assert len(crowd.opened()) == OWNER
        assert crowd.status[f"a{OWNER}"] == 503
        crowd.end()

    asyncio.run(run())
