"""Logging in and out: the pages, the slow-down before a password is looked at, and the log."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from instructblip.errors import Busy, InstructBlipError
from webui.accounts import Accounts
from webui.asgi.login_page import login_page, logout_page
from webui.asgi.scope import cookies
from webui.bounds import Bound, Client, client_of
from webui.devices import AGE as DEVICE_AGE
from webui.devices import Device, Devices
from webui.i18n import error_text, language_of, text
from webui.login_sessions import AGE
from webui.sessions import COOKIE, Signer
from webui.slowdown import TICKET_AGE, Attempt, SlowDown, Slowed, Try

log = logging.getLogger(__name__)

TICKET = "instructblip_wait"  # cookie
_LONGEST = 16_384  # bytes of a login form
_LINES, _LINES_A_SECOND = 20.0, 0.5  # of the log
# Passwords that wait to be looked at, one by one, 0.1 s each: the last one waits 2 s.
WAITING = {"owner": 2, "address": 4, "total": 16}


@dataclass(frozen=True, slots=True)
class Asked:
    """A login form that came, and who sent it."""

    name: str
    password: str
    device: Device | None
    client: Client

    @property
    def known(self) -> bool:
        """Whether the browser has known the password before."""
        return self.device is not None and self.device.trusted


class Logins:
    """Answers to login forms. ``root``: the prefix of a proxy, in front of all addresses."""

    def __init__(
        self, accounts: Accounts, signer: Signer, root: str = "", slowdown: SlowDown | None = None
    ) -> None:
        self.accounts, self.root = accounts, root
        self._devices = Devices(signer)
        self._slowdown = slowdown or SlowDown()
        self._bound = Bound("logins", **WAITING)
        self._checking = ThreadPoolExecutor(1, "logins")
        self._log = LoginLog()

    def close(self) -> None:
        """Look at no more passwords."""
        self._checking.shutdown(wait=False, cancel_futures=True)

    async def enter(self, request: Request) -> Response:
        """Let somebody in, or say why not."""
        form = await _form(request)
        if form is None:
            return self._page(request, 400, text(language_of(request), "login_wrong"))
        name, password = form
        device = self._devices.read(name, request.cookies, self.accounts.proof(name))
        asked = Asked(name, password, device, client_of(request))
        try:
            attempt = self._attempt(asked, request)
        except Slowed as slowed:
            self._log.failed("slowed", asked)
            answer = self._page(request, 429, error_text(language_of(request), slowed), name)
            if slowed.ticket:
                put_cookie(answer, request, TICKET, slowed.ticket, TICKET_AGE)
            return _later(answer, slowed.seconds)
        try:
            right = await self._look(asked, attempt)
        except Busy as busy:
            attempt.unused()
            words = error_text(language_of(request), busy)
            return _later(self._page(request, 503, words, name), 2)
        if not right:
            self._log.failed("failed", asked)
            return self._page(request, 401, text(language_of(request), "login_wrong"), name)
        attempt.right()
        return self._welcome(asked, request)

    def leave(self, request: Request) -> Response:
        """End the session; the cookie is worth nothing from then on."""
        for value in cookies(request.scope, COOKIE):
            visitor = self.accounts.visitor(value)
            try:
                self.accounts.leave(value)
            except InstructBlipError as error:
                log.error("%s", error)
                return self._unwritable(request)
            if visitor is not None and visitor.login:
                log.info("logged out: %r", visitor.login)
        answer = RedirectResponse(f"{self.root}/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def _attempt(self, asked: Asked, request: Request) -> Attempt:
        return self._slowdown.enter(
            Try(
                asked.name,
                asked.name in self.accounts,
                asked.client.address,
                asked.device.number if asked.device and asked.known else "",
                request.cookies.get(TICKET, ""),
            )
        )

    async def _look(self, asked: Asked, attempt: Attempt) -> bool:
        """Check the password in the line of those that wait; one is checked at a time.

        Raises:
            Busy: the line is full.
        """
        owner = asked.device.number if asked.device else secrets.token_hex(8)
        hold = self._bound.enter(Client(owner, asked.client.address, asked.known))
        checking = self._checking.submit(self.accounts.check, asked.name, asked.password)
        checking.add_done_callback(lambda _: hold.leave())
        return await asyncio.wrap_future(checking)

    def _welcome(self, asked: Asked, request: Request) -> Response:
        name = asked.name
        old = request.cookies.get(COOKIE, "")
        device = asked.device or self._devices.of_old(name, old, asked.password) or Devices.new()
        try:
            self.accounts.leave(old)
            session = self.accounts.enter(name, device.number)
        except InstructBlipError as error:
            log.error("%s", error)
            return self._unwritable(request)
        log.info("logged in: %r from %s", name, _place(asked))
        answer = RedirectResponse(f"{self.root}/", 303)
        put_cookie(answer, request, COOKIE, session, AGE)
        seen = self._devices.value(name, device.number, self.accounts.proof(name))
        put_cookie(answer, request, Devices.cookie_name(name), seen, DEVICE_AGE)
        return answer

    def _page(self, request: Request, status: int, note: str, name: str = "") -> HTMLResponse:
        page = login_page(language_of(request), note, name)
        return HTMLResponse(page, status, {"Cache-Control": "no-store"})

    def _unwritable(self, request: Request) -> Response:
        words = text(language_of(request), "login_unwritable")
        return _later(self._page(request, 503, words), 5)


class LoginLog:
    """Failed logins in the log: a burst in full, then a line now and then with how many it stands for."""

    def __init__(self) -> None:
        self._level, self._at, self._left_out = _LINES, time.monotonic(), 0

    def failed(self, what: str, asked: Asked) -> None:
        """A login failed, or came too early. Names are escaped; the password is not said."""
        now = time.monotonic()
        self._level = min(_LINES, self._level + (now - self._at) * _LINES_A_SECOND)
        self._at = now
        if self._level < 1:
            self._left_out += 1
            return
        self._level -= 1
        more = f" (and {self._left_out} more)" if self._left_out else ""
        self._left_out = 0
        words = "login %s: %r from %s%s"
        counted = {"counted": True}
        log.warning(words, what, asked.name[:100], _place(asked), more, extra=counted)


def login_routes(app: FastAPI, logins: Logins) -> None:
    """``/login`` and ``/logout``."""

    @app.get("/login")
    def form(request: Request) -> Response:
        if not logins.accounts.asked:
            return RedirectResponse(f"{logins.root}/", 303)
        page = login_page(language_of(request))
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    @app.post("/login")
    async def enter(request: Request) -> Response:
        if not logins.accounts.asked:
            return RedirectResponse(f"{logins.root}/", 303)
        return await logins.enter(request)

    @app.get("/logout")
    def ask(request: Request) -> Response:
        # A link or a picture of another site gets here: it changes nothing.
        page = logout_page(language_of(request))
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    @app.post("/logout")
    def leave(request: Request) -> Response:
        return logins.leave(request)


def put_cookie(answer: Response, request: Request, name: str, value: str, age: float) -> None:
    """Set a cookie that no script reads; over https alone where the page came so."""
    secure = request.scope.get("scheme") == "https"
    answer.set_cookie(name, value, max_age=int(age), httponly=True, samesite="lax", secure=secure)


async def _form(request: Request) -> tuple[str, str] | None:
    """Name and password of a login form; None when it is none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            return None
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "surrogateescape"), keep_blank_values=True, max_num_fields=10,
            errors="surrogateescape",
        )  # fmt: skip
    except ValueError:
        return None
    values = dict(pairs)
    return values.get("name", "").strip(), values.get("password", "")


def _later(answer: Response, seconds: int) -> Response:
    answer.headers["Retry-After"] = str(seconds)
    return answer


def _place(asked: Asked) -> str:
    browser = ", a browser that has logged in before" if asked.known else ""
    return (asked.client.address or "an address that is not known") + browser
