"""The page is rendered once for each address that it is asked under."""

import asyncio
from typing import Any

import pytest

from webui.asgi.rendered import RenderedPage

Answer = tuple[int, bytes]


class Rendering:
    """An app that says how often it was asked, in two pieces."""

    def __init__(self, status: int = 200, header: bytes = b"content-type") -> None:
        self.asked, self.status, self.header = 0, status, header

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await send(
            {"type": "http.response.start", "status": self.status, "headers": [(self.header, b"x")]}
        )
        await send({"type": "http.response.body", "body": b"page ", "more_body": True})
        await send({"type": "http.response.body", "body": str(self.asked).encode()})


def ask(page: RenderedPage, path: str = "/", host: str = "a", **scope: Any) -> Answer:
    status, body = 0, b""

    async def send(message: Any) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
            message["headers"].append((b"set-cookie", b"mine"))  # as layers outside do
            assert len(message["headers"]) == 2
        else:
            body += message.get("body", b"")

    full = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", host.encode())]}
    asyncio.run(page({**full, **scope}, None, send))
    return status, body


def test_it_is_kept_by_address_and_path() -> None:
    page = RenderedPage(Rendering())
    assert ask(page) == ask(page) == ask(page, query_string=b"chat=x") == (200, b"page 1")
    assert ask(page, host="b") == (200, b"page 2")
    assert ask(page, scheme="https") == (200, b"page 3")
    assert ask(page, "/config") == ask(page, "/config") == (200, b"page 4")
    assert ask(page, method="HEAD") == (200, b"")
    assert ask(page) == (200, b"page 1")


@pytest.mark.parametrize("how", [{"path": "/other"}, {"method": "POST"}, {"method": "HEAD"}])
def test_nothing_else_is_kept(how: dict[str, str]) -> None:
    app = Rendering()
    page = RenderedPage(app)
    ask(page, **how)  # type: ignore[arg-type]
    ask(page, **how)  # type: ignore[arg-type]
    assert app.asked == 2


def test_an_error_is_not_kept() -> None:
    app = Rendering(status=500)
    page = RenderedPage(app)
    assert ask(page)[0] == ask(page)[0] == 500
    assert app.asked == 2


@pytest.mark.parametrize("header", [b"Content-Encoding", b"set-cookie", b"vary"])
def test_an_answer_that_depends_on_who_asks_is_not_kept(header: bytes) -> None:
    app = Rendering(header=header)
    page = RenderedPage(app)
    assert (ask(page)[1], ask(page)[1]) == (b"page 1", b"page 2")


def test_what_is_kept_is_bounded() -> None:
    app = Rendering()
    page = RenderedPage(app)
    for n in range(1000):
        ask(page, host=f"host {n}")
    assert len(page._kept) <= 8
    ask(page, host="host 999")
    assert app.asked == 1000
