"""The guard in front of every request: which route, from which page, for whom, and how much.

ASGI middleware around the whole app, Gradio included: Gradio alone shows any upload to whoever
has its path, reflects foreign origins, gives a tab's stream to whoever names it, and serves routes
that no page of ours needs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from instructblip.errors import Busy, InstructBlipError, UnknownTurn
from webui.accounts import Accounts
from webui.asgi.bodies import read_event
from webui.asgi.front import ADDRESS
from webui.asgi.inputs import Events
from webui.asgi.place import SAFE, Place
from webui.asgi.routes import SESSION, Route, Session, Who, find
from webui.asgi.scope import cookies, header, language, refusal, without
from webui.asgi.turns import Meter, Timed, Turn, Turns
from webui.bounds import Client
from webui.i18n import error_text
from webui.sessions import COOKIE, COOKIE_AGE, Signer, Visitor
from webui.settings import Settings
from webui.tabs import Tabs
from webui.uploads import Uploads

BODY_PAUSE = 30.0  # seconds for an event's body to come


class Refused(Exception):
    """A request ends here, with this answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


class Guard:
    """Checks, in this order: host, origin, route, size, visitor, turn, tab, body; then hands on.

    Args:
        known: whether an owner has answers here; such owners keep a part of every total.
        place: which addresses of ours, and pages of which addresses, may ask.
        events: what the page's events take.
    """

    def __init__(
        self,
        app: Any,
        settings: Settings,
        signer: Signer,
        accounts: Accounts,
        uploads: Uploads,
        tabs: Tabs,
        known: Callable[[str], bool],
        place: Place,
        events: Events,
    ) -> None:
        self.app = app
        self.settings = settings
        self._signer, self._accounts = signer, accounts
        self._uploads, self._tabs = uploads, tabs
        self._known = known
        self._place, self._events = place, events
        self._turns = Turns()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is refused; else mark the visitor and pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            meter = Meter(self._turns)
            await Timed(self._pass(scope, receive, send, meter), meter.spend)
        except Refused as refused:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
                return
            await refused.answer(scope, receive, send)

    async def _pass(self, scope: Any, receive: Any, send: Any, meter: Meter) -> None:
        if (refused := self._place.refuse(scope)) is not None:
            raise Refused(refused)
        route = find(scope)
        if route is None:
            raise Refused(refusal(scope, 404, "refused_page"))
        self._check_size(scope, route)
        came = self._visitor(scope)
        fresh = came is None and route.who is Who.NEWCOMER
        visitor = came or self._stranger(scope, route)
        known = came is not None and self._known(came.owner)
        client = Client(visitor.owner, scope.get(ADDRESS), known)
        meter.charge(client)
        inner = {
            **scope,
            "instructblip.visitor": visitor,
            "instructblip.client": client,
            "query_string": _query(scope, route),
        }
        body = await self._body(scope, receive, route) if route.session is Session.BODY else b""
        turn = None if route.is_light else await self._turn(scope, client)
        if turn is not None and route.body < 0:
            turn.end()  # most of its time is its sender's
        newcomer, private = visitor if fresh else None, route.who is not Who.ANYONE
        answer = _Answer(self, inner, send, newcomer, private, turn).send
        try:
            await self._answer(inner, receive, answer, route, client, body)
        finally:
            if turn is not None:
                turn.end()

    async def _answer(
        self, scope: Any, receive: Any, send: Any, route: Route, client: Client, body: bytes
    ) -> None:
        session, receive = self._event(scope, receive, route, client, body)
        if route.session in (Session.PATH, Session.QUERY):
            with self._tabs.streaming(session):
                await self._stream(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            # Another stream of the tab has read the last event: Gradio says 404 in the middle.
            if not isinstance(error.__cause__, HTTPException):
                raise

    # --- checks --------------------------------------------------------------------------------

    def _check_size(self, scope: Any, route: Route) -> None:
        size, limit = header(scope, b"content-length"), self._limit(route)
        if size and not (size.isdecimal() and size.isascii() and int(size[:18]) <= limit):
            raise Refused(self._too_large(scope, route))

    def _limit(self, route: Route) -> int:
        return (self.settings.max_upload + 1) * 2**20 if route.body < 0 else route.body

    def _too_large(self, scope: Any, route: Route) -> Response:
        if route.body < 0:
            return refusal(scope, 413, "refused_upload_size", limit=self.settings.max_upload)
        return refusal(scope, 413, "refused_size")

    def _visitor(self, scope: Any) -> Visitor | None:
        found = (self._accounts.visitor(value) for value in cookies(scope, COOKIE))
        return next((visitor for visitor in found if visitor is not None), None)

    def _stranger(self, scope: Any, route: Route) -> Visitor:
        """Who has no cookie: a visitor of this one request, or sent to the login, or away."""
        if route.who is not Who.ANYONE and self._accounts.asked:
            if "text/html" in header(scope, b"accept"):
                raise Refused(RedirectResponse(f"{self.settings.root_path}/login", 303))
            raise Refused(refusal(scope, 401, "refused_login"))
        if route.who is Who.VISITOR:
            # What belongs to visitors looks absent to everybody else.
            status = 404 if scope.get("method") in SAFE else 403
            raise Refused(refusal(scope, status, "refused_visitor"))
        return self._signer.new_visitor()

    # --- events --------------------------------------------------------------------------------

    async def _turn(self, scope: Any, client: Client) -> Turn:
        try:
            return await self._turns.begin(client)
        except Busy as error:
            raise Refused(_failed(scope, error)) from error

    def _event(
        self, scope: Any, receive: Any, route: Route, client: Client, body: bytes
    ) -> tuple[str, Any]:
        """The tab that a request is about, claimed for its sender; and the body to hand on."""
        try:
            if route.session is Session.BODY:
                checked, session = read_event(body, lambda p: self._uploads.owns(client.owner, p))
                self._events.check(checked["fn_index"], checked["data"])
                receive = _whole(scope, receive, json.dumps(checked).encode())
            elif route.session is Session.NONE:
                return "", _limited(receive, self._limit(route))
            else:
                session, receive = _named_session(scope, route), _limited(receive, 0)
            self._tabs.claim(client, session)
            if route.session is Session.BODY:
                self._tabs.check_events(session)
            else:
                self._tabs.check_stream(session, events=route.session is Session.QUERY)
        except InstructBlipError as error:
            raise Refused(_failed(scope, error)) from error
        return session, receive

    async def _body(self, scope: Any, receive: Any, route: Route) -> bytes:
        body, limit = b"", self._limit(route)
        try:
            async with asyncio.timeout(BODY_PAUSE):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise Refused(self._too_large(scope, route))
                    if not message.get("more_body"):
                        return body
        except TimeoutError:
            raise Refused(refusal(scope, 408, "refused_slow")) from None
        raise Refused(refusal(scope, 400, "refused_slow"))  # the client is gone

    def cookie(self, visitor: Visitor, scope: Any) -> bytes:
        """The Set-Cookie header's value."""
        return set_cookie(self._signer, visitor, scope).encode()


def set_cookie(signer: Signer, visitor: Visitor, scope: Any) -> str:
    """The Set-Cookie header for a visitor without a login; Secure when the page came over https."""
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    value = signer.cookie(visitor)
    return f"{COOKIE}={value}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Lax{secure}"


class _Answer:
    """Adds headers to an answer."""

    def __init__(
        self, guard: Guard, scope: Any, send: Any, newcomer: Visitor | None, private: bool,
        turn: Turn | None,
    ) -> None:  # fmt: skip
        self._guard, self._scope, self._send = guard, scope, send
        self._newcomer, self._private, self._turn = newcomer, private, turn

    async def send(self, message: Any) -> None:
        if self._turn is not None:  # the rest goes as fast as it is read
            self._turn.end()
        if message["type"] == "http.response.start":
            message = {**message, "headers": self._headers(message["headers"])}
        await self._send(message)

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        # Gradio reflects origins; no other site's page has business here.
        kept = without(headers, (b"access-control-allow*",))
        names = {k.lower() for k, _ in kept}
        extra = {
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"same-origin",
            b"content-security-policy": b"frame-ancestors 'self'",
        }
        kept += [(k, v) for k, v in extra.items() if k not in names]
        if self._newcomer is not None:
            kept = without(kept, (b"cache-control",))
            kept.append((b"set-cookie", self._guard.cookie(self._newcomer, self._scope)))
        unsaid = self._private and b"cache-control" not in names
        if unsaid or any(k.lower() == b"set-cookie" for k, _ in kept):
            # A cache between would hand one visitor's page or cookie to the next.
            kept = without(kept, (b"cache-control",))
            kept.append((b"cache-control", b"no-store"))
        return kept


def _query(scope: Any, route: Route) -> bytes:
    """The query that is handed on: what the route knows, or all of it."""
    given: bytes = scope.get("query_string", b"")
    if route.query is None:
        return given
    pairs = parse_qsl(given.decode("latin-1"), keep_blank_values=True)
    return urlencode([(k, v) for k, v in pairs if k in route.query]).encode()


def _named_session(scope: Any, route: Route) -> str:
    if route.session is Session.PATH:
        found = [route.rest(scope["path"])]
    else:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        found = [value for key, value in pairs if key == "session_hash"]
    if len(found) != 1 or not SESSION.match(found[0]):
        raise UnknownTurn("There is no such tab. Reload the page.", code="tab_foreign")
    return found[0]


def _whole(scope: Any, receive: Any, body: bytes) -> Any:
    """A ``receive`` that gives this body first; the scope's headers are made to fit it."""
    scope["headers"] = [
        *without(scope["headers"], (b"content-length", b"transfer-encoding", b"content-type")),
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    ]
    given = False

    async def take() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return take


def _limited(receive: Any, limit: int) -> Any:
    """Also stop a body that states no length."""
    seen = 0

    async def take() -> Any:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                return {"type": "http.disconnect"}
        return message

    return take


def _failed(scope: Any, error: InstructBlipError) -> Response:
    status = 429 if isinstance(error, Busy) else 404 if error.code == "tab_foreign" else 400
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": "5"} if status == 429 else {})
    return JSONResponse({"error": error_text(language(scope), error)}, status, headers)
