"""HTTP and WebSocket connections with an end: uvicorn has no time-out for a request's parts.

Both are uvicorn's protocols, which tell :class:`~webui.asgi.lines.Lines` what they are at. h11 is
the parser whether httptools is installed or not: what is refused should not depend on that.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from webui.asgi.lines import Lines, Phase

HEAD_SIZE = 32_768  # bytes of a request's head, and of what is read before it is complete
HEADERS = 100
_PIECES = 256  # of a body; after that they must hold as many bytes as …
_PIECE = 32  # … this, on average
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._~-]+)(?::([0-9]{0,5}))?")
_RANGE = re.compile(rb"bytes=(?:[0-9]{1,15}-[0-9]{0,15}|-[0-9]{1,15})")


class Parser(h11.Connection):
    """h11, which also refuses heads and bodies that cost more than they say."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        """The next event.

        Raises:
            h11.RemoteProtocolError: also for a head that is too large or names no possible host,
                and for a body in tiny pieces.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
            _check_head(event)
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _PIECES and self._bytes < self._pieces * _PIECE:
                raise h11.RemoteProtocolError("the body comes in pieces that are too small")
        return event


def _check_head(request: h11.Request) -> None:
    size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
    if size > HEAD_SIZE or len(request.headers) > HEADERS:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
    for name, value in request.headers:
        if name in (b"host", b"x-forwarded-host") and not all(
            is_host(part.strip()) for part in value.split(b",")
        ):
            raise h11.RemoteProtocolError("no such host is possible")
        if name in (b"origin", b"referer") and not _is_address(value):
            raise h11.RemoteProtocolError("no such address is possible")


def is_host(value: bytes) -> bool:
    """Whether a Host header names a host, perhaps with a port."""
    found = _HOST.fullmatch(value)
    if found is None or int(found[2] or 0) > 65535:
        return False
    if found[1] is not None:
        try:
            ipaddress.IPv6Address(found[1].decode())
        except ValueError:
            return False
    return True


def _is_address(value: bytes) -> bool:
    try:
        urlsplit(value.decode("latin-1")).port  # noqa: B018 (it raises)
    except ValueError:
        return False
    return True


class HttpConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, counted and timed by :class:`Lines`."""

    def __init__(self, lines: Lines, **given: Any) -> None:
        super().__init__(**given)
        self.lines = lines
        self.conn = Parser(h11.SERVER, HEAD_SIZE)
        self.app = partial(self._answer, self.app)
        made: Any = partial(WebSocketConnection, self)
        self.ws_protocol_class = made

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self.line = self.lines.enter(transport, peer, self._unasked)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lines.leave(self.line)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.lines.receive(self.line, len(data))
        super().data_received(data)
        self._note()
        rest = self.line.received if self.line.phase is Phase.BODY else 0
        answered = self.cycle is not None and self.cycle.response_complete
        if answered and rest > self.lines.limits.drained:
            self.lines.drop(self.line)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.line.read_on()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if not self.lines.may_upgrade():
            self._refuse(503, b"Service Unavailable")
            return
        self.lines.move(self.line, Phase.SOCKET)
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # The app still works on what turned out to be broken: nobody reads its answer.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            # Without uvicorn's words: an answer to HEAD must have none.
            self._refuse(400, b"Bad Request")
        else:  # an answer is under way or was given; a second one would be taken for its rest
            self.transport.close()

    def shutdown(self) -> None:
        if self.line.phase is Phase.BODY:  # it would hold the end of the server up
            self.transport.abort()
        else:
            super().shutdown()

    def _note(self) -> None:
        """Say what this connection is at, by the states of the parser."""
        if self.line.phase is Phase.SOCKET:
            return
        theirs = self.conn.their_state
        if theirs is h11.IDLE:
            begun = bool(self.conn.trailing_data[0])
            self.lines.move(self.line, Phase.HEAD if begun else Phase.IDLE)
        else:
            self.lines.move(self.line, Phase.BODY if theirs is h11.SEND_BODY else Phase.BUSY)

    def _unasked(self) -> bool:
        return self.flow.read_paused or self.conn.they_are_waiting_for_100_continue

    def _refuse(self, code: int, reason: bytes) -> None:
        headers = [(b"connection", b"close"), (b"content-length", b"0")]
        start = h11.Response(status_code=code, headers=headers, reason=reason)
        for event in (start, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    async def _answer(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Run the app. That the client has gone meanwhile is no error of its."""
        scope["headers"] = [pair for pair in scope["headers"] if not _odd_range(*pair)]
        try:
            await app(scope, receive, send)
        except (ClientDisconnect, BaseExceptionGroup) as error:
            gone = self.cycle.disconnected or self.transport.is_closing()
            if not gone or not _only_gone(error):
                raise


def _odd_range(name: bytes, value: bytes) -> bool:
    """A server may ignore Range; what is not one plain range trips one library or the other."""
    return name == b"range" and not _RANGE.fullmatch(value)


def _only_gone(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_gone, error.exceptions))
    return isinstance(error, ClientDisconnect)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket on a line that was an :class:`HttpConnection`."""

    def __init__(self, before: HttpConnection, **given: Any) -> None:
        super().__init__(**given)
        self._lines, self._line = before.lines, before.line

    def connection_lost(self, exc: Exception | None) -> None:
        self._lines.leave(self._line)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._line.read_on()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:  # who does not read gets no pong: they would pile up
            self.conn.data_to_send()

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) >= _PIECES:  # empty pieces have no size that anything else would bound
            self._lines.drop(self._line)
        else:
            super().handle_cont(event)
