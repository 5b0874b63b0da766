"""What webui/asgi relies on in uvicorn and h11: a new version that changes it is noticed here."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from webui.asgi.connections import HttpConnection, Parser, WebSocketConnection
from webui.asgi.lines import Limits, Lines, Phase
from webui.asgi.listening import BoundedServer, connection_of


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await receive()
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


def connection() -> tuple[HttpConnection, Transport]:
    config = uvicorn.Config(
        app, http=connection_of(Lines(Limits.of(256))), ws="websockets-sansio", lifespan="off"
    )
    config.load()
    made: Any = config.http_protocol_class
    protocol = made(config=config, server_state=ServerState(), app_state={})
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


def test_what_is_overridden_exists() -> None:
    for ours, theirs in (
        (HttpConnection, H11Protocol),
        (WebSocketConnection, WebSocketsSansIOProtocol),
        (Parser, h11.Connection),
        (BoundedServer, uvicorn.Server),
    ):
        for name, value in vars(ours).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                assert callable(getattr(theirs, name, None)), f"{theirs.__name__}.{name}"


def test_what_is_read_exists() -> None:
    async def run() -> None:
        http, _ = connection()
        assert isinstance(http.conn, Parser)
        assert http.flow.read_paused is False
        assert http.cycle is None
        assert callable(http.ws_protocol_class)
        socket = WebSocketConnection(
            http, config=http.config, server_state=ServerState(), app_state={}
        )
        assert socket.frames == []
        assert socket.writable.is_set()

    asyncio.run(run())
    source = inspect.getsource(RequestResponseCycle)
    for name in ("disconnected", "message_event", "response_complete"):
        assert f"self.{name} =" in source


def test_a_connection_says_what_it_is_at() -> None:
    async def run() -> None:
        http, transport = connection()
        steps = [
            (b"POST / HT", Phase.HEAD), (b"TP/1.1\r\nHost: a\r\n", Phase.HEAD),
            (b"Content-Length: 2\r\n\r\n", Phase.BODY), (b"a", Phase.BODY), (b"b", Phase.BUSY),
        ]  # fmt: skip
        assert http.line.phase is Phase.HEAD
        for sent, phase in steps:
            http.data_received(sent)
            assert http.line.phase is phase, sent
        for _ in range(10):
            await asyncio.sleep(0)
        assert transport.written.startswith(b"HTTP/1.1 200")
        assert http.line.phase is Phase.IDLE
        http.data_received(
            b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert http.line.phase is Phase.SOCKET
        assert isinstance(transport.protocol, WebSocketConnection)
        assert len(http.lines) == 1
        transport.protocol.connection_lost(None)
        assert len(http.lines) == 0

    asyncio.run(run())


def test_more_are_let_in_at_once_where_there_is_room() -> None:
    """Who waits behind 500 others waits for a few turns of the loop then, not for sixty."""

    def batch(descriptors: int) -> int:
        lines = Lines(Limits.of(descriptors))
        return BoundedServer(
            uvicorn.Config(lambda: None, http=connection_of(lines)), lines
        )._batch()

    assert batch(20_000) == 128
    assert batch(256) <= 24
    assert batch(124) == 8
