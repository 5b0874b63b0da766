"""The guard in front of every request: who asks, from which page, for what, and how much.

ASGI middleware around the whole app, Gradio included: Gradio alone shows any upload to whoever
has its path, reflects foreign origins, and serves routes that no page of ours needs.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response

from webui.accounts import Accounts
from webui.asgi.hosts import may_post, refusal
from webui.sessions import COOKIE, COOKIE_AGE, Signer, Visitor
from webui.settings import Settings
from webui.uploads import UPLOAD, Uploads, asked_file, header

log = logging.getLogger(__name__)

SAFE = ("GET", "HEAD", "OPTIONS")
# Routes of Gradio's that would reach other hosts, other files or other people's state.
CLOSED = ("/monitoring", "/gradio_api/proxy=", "/proxy=", "/gradio_api/deep_link", "/gradio_api/vibe",
          "/gradio_api/stream/", "/gradio_api/reload", "/gradio_api/mcp")  # fmt: skip
OPEN = ("/login", "/healthz", "/favicon.ico")


class Guard:
    """Checks, in this order: host, origin, size, route, visitor, file; then hands on."""

    def __init__(
        self,
        app: Any,
        settings: Settings,
        signer: Signer,
        accounts: Accounts,
        uploads: Uploads,
        origins: set[str],
    ) -> None:
        self.app = app
        self.settings = settings
        self._signer = signer
        self._accounts = accounts
        self._uploads = uploads
        self._origins = origins  # may grow while the server runs, by a share link
        self._limit = (settings.max_upload + 1) * 2**20

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is refused; else mark the visitor and pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self._refusal(scope)
        visitor = self._visitor(scope)
        if refused is None and visitor is None and not _under(scope["path"], OPEN):
            refused = self._to_login(scope)
        fresh = visitor is None or scope.get("instructblip.fresh")
        visitor = visitor or self._signer.new_visitor()
        if refused is None:
            refused = self._foreign_file(scope, visitor)
        if refused is not None:
            await _refuse(scope, receive, send, refused)
            return
        scope["instructblip.visitor"] = visitor
        taken = _Answer(self, scope, send, visitor if fresh and not self._accounts.asked else None)
        await self.app(scope, _limited(receive, self._limit), taken.send)

    # --- checks --------------------------------------------------------------------------------

    def _refusal(self, scope: Any) -> Response | None:
        host = header(scope, b"host").lower()
        if not self._known_host(host):
            return _error(403, refusal(host, _scheme(scope)))
        origin = header(scope, b"origin").lower()
        method = scope.get("method", "GET")
        crossing = method not in SAFE or scope["type"] == "websocket"
        if origin and crossing and not self._same(origin, host):
            return _error(
                403,
                f"A page of {origin} may not talk to this server. Start it with "
                f"--origins {origin} if that is its own address.",
            )
        size = header(scope, b"content-length")
        if size.isdigit() and int(size) > self._limit:
            return _error(
                413, f"At most {self.settings.max_upload} MB can be sent. Send a smaller file."
            )
        if any(scope["path"].startswith(closed) for closed in CLOSED):
            return _error(404, "There is no such page.")
        return None

    def _known_host(self, host: str) -> bool:
        """Against DNS rebinding; with logins, a rebound name has no cookie."""
        loopback = self.settings.loopback
        if self._accounts.asked and not loopback:
            return True
        return may_post(host, self._origins, loopback=loopback)

    def _same(self, origin: str, host: str) -> bool:
        return origin in self._origins or urlsplit(origin).netloc == host

    def _visitor(self, scope: Any) -> Visitor | None:
        for part in header(scope, b"cookie").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                return self._accounts.visitor(value)
        return None

    def _to_login(self, scope: Any) -> Response | None:
        """Without logins everybody is a visitor; with them a page goes to the login first."""
        if not self._accounts.asked:
            scope["instructblip.fresh"] = True
            return None
        if "text/html" in header(scope, b"accept"):
            return RedirectResponse(f"{scope.get('root_path', '')}/login", 303)
        return _error(401, "Log in first, on /login.")

    def _foreign_file(self, scope: Any, visitor: Visitor) -> Response | None:
        path = asked_file(scope["path"])
        if path is None or self._uploads.owns(visitor.owner, path):
            return None
        return _error(404, "There is no such file.")

    def cookie(self, visitor: Visitor, scope: Any) -> bytes:
        """The Set-Cookie header's value."""
        return set_cookie(self._signer, visitor, scope).encode()

    def uploaded(self, scope: Any, visitor: Visitor, body: bytes) -> None:
        """Remember whose an upload is."""
        if scope["path"].endswith(UPLOAD):
            self._uploads.take_answer(visitor.owner, body)


def set_cookie(signer: Signer, visitor: Visitor, scope: Any) -> str:
    """The Set-Cookie header for a visitor without a login; Secure when the page came over https."""
    secure = "; Secure" if _scheme(scope) == "https" else ""
    value = signer.cookie(visitor)
    return f"{COOKIE}={value}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Lax{secure}"


def _scheme(scope: Any) -> str:
    return header(scope, b"x-forwarded-proto") or str(scope.get("scheme", ""))


class _Answer:
    """Adds headers to an answer, and reads the paths of an upload's."""

    def __init__(self, guard: Guard, scope: Any, send: Any, newcomer: Visitor | None) -> None:
        self._guard, self._scope, self._send = guard, scope, send
        self._newcomer = newcomer
        self._body = b""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": self._headers(message["headers"])}
        elif message["type"] == "http.response.body" and self._scope["path"].endswith(UPLOAD):
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                visitor = self._scope["instructblip.visitor"]
                self._guard.uploaded(self._scope, visitor, self._body)
        await self._send(message)

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        # Gradio reflects origins; no other site's page has business here.
        kept = [(k, v) for k, v in headers if not k.lower().startswith(b"access-control-allow")]
        names = {k.lower() for k, _ in kept}
        extra = {
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"same-origin",
            b"content-security-policy": b"frame-ancestors 'self'",
        }
        kept += [(k, v) for k, v in extra.items() if k not in names]
        if self._newcomer is not None:
            kept.append((b"set-cookie", self._guard.cookie(self._newcomer, self._scope)))
        return kept


def _limited(receive: Any, limit: int) -> Any:
    """Also stop a body that states no length."""
    seen = 0

    async def take() -> Any:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                log.warning("a request body was cut off after %d MB", limit // 2**20)
                return {"type": "http.disconnect"}
        return message

    return take


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == p or path.startswith(p + "/") for p in prefixes)


def _error(status: int, words: str) -> Response:
    return JSONResponse({"error": words}, status)


async def _refuse(scope: Any, receive: Any, send: Any, answer: Response) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    await answer(scope, receive, send)
