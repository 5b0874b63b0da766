"""What a request's path, host, scheme and sender are: decided here once, outermost.

Behind a proxy each of them can be read in two ways, and layers that read differently are how files
of one visitor reach another. So everything within sees one path without prefix, one Host, the right
scheme, and no forwarded header at all.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse, Response

from webui.asgi.scope import Notices, header, refusal, without
from webui.bounds import network
from webui.settings import Settings

log = logging.getLogger(__name__)

ADDRESS = "instructblip.address"  # in the scope: what stands for the sender in a bound, or None
# Headers in which a proxy names the sender, host or path; also those that Gradio would believe.
FORWARDED = (b"forwarded", b"x-forwarded-*", b"x-real-ip", b"x-original-*", b"x-rewrite-url",
             b"x-gradio-*", b"x-client-ip", b"cf-connecting-ip", b"true-client-ip")  # fmt: skip
_LONGEST, _DEEPEST = 255, 64  # bytes of a part of a path, and parts
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Front:
    """ASGI middleware: one reading of a request, for all layers within.

    Args:
        origins: further addresses of the page; grows when a share link opens.
    """

    def __init__(self, app: Any, settings: Settings, origins: set[str]) -> None:
        self.app = app
        self._settings, self._origins = settings, origins
        self._trusted = named_proxies(settings)
        self._notices = Notices(log)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on what can be read in one way."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        found = self._read(scope)
        if isinstance(found, Response):
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            else:
                await found(scope, receive, send)
            return
        await self.app(found, receive, send)

    def _read(self, scope: Any) -> Any:
        root = self._settings.root_path
        path = canonical(scope["path"], root)
        if path is None:
            return refusal(scope, 404, "refused_page")
        if path == "/" and root and scope["path"] == root and scope["type"] == "http":
            return RedirectResponse(f"{root}/", 308)
        peer = (scope.get("client") or ("",))[0]
        trusted = self._trusted(peer)
        host = header(scope, b"host")
        if trusted and (named := self._said(scope, b"x-forwarded-host")):
            host = named
        host = host.lower()
        if host_name(host) is None:
            return refusal(scope, 400, "refused_bad_host")
        scheme = self._scheme(scope, host, trusted)
        headers = without(scope["headers"], (b"host", *FORWARDED))
        return {
            **scope,
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "scheme": scheme,
            "headers": [(b"host", host.encode("latin-1")), *headers],
            ADDRESS: self._address(scope, peer, trusted),
        }

    def _scheme(self, scope: Any, host: str, trusted: bool) -> str:
        """http or https (ws, wss) as the browser sees it: by the proxy's word, or the page's address."""
        scheme = scope.get("scheme", "http")
        socket = scope["type"] == "websocket"
        said = self._said(scope, b"x-forwarded-proto").lower() if trusted else ""
        mine = {o.partition("://")[0] for o in self._origins if same_host(o, host)}
        if said in ("http", "https", "ws", "wss"):
            secure = said in ("https", "wss")
        else:
            secure = "https" in mine or (scheme in ("https", "wss") and "http" not in mine)
        return ("wss" if secure else "ws") if socket else ("https" if secure else "http")

    def _chain(self, scope: Any) -> tuple[list[str], int]:
        """The senders that proxies name, and how many proxies of ours a request came through."""
        chain = [_bare(part) for part in _parts(scope, b"x-forwarded-for")]
        hops = 1
        while hops <= len(chain) and self._trusted(chain[-hops]):
            hops += 1
        return chain, hops

    def _said(self, scope: Any, name: bytes) -> str:
        """What the outermost proxy of ours says; what stands before that, the client has said."""
        parts = _parts(scope, name)
        return parts[-min(self._chain(scope)[1], len(parts))] if parts else ""

    def _address(self, scope: Any, peer: str, trusted: bool) -> str | None:
        """Who sent it, as a bound counts addresses; None where that cannot be known."""
        if trusted:
            chain, hops = self._chain(scope)
            return network(chain[-hops]) if hops <= len(chain) else None
        if len(without(scope["headers"], (*FORWARDED, b"via"))) == len(scope["headers"]):
            return network(peer)
        if not self._settings.share:  # else it is the tunnel
            self._notices.warn(
                f"proxy {peer}",
                "a proxy at %s forwards requests, and its headers are not believed: visitors are not "
                "told apart by address. If it is yours, start with --proxies %s",
                peer,
                peer,
            )
        # A near proxy stands for many; a far one is counted as the stranger that it may be.
        return network(peer) if _is_far(peer) else None


def named_proxies(settings: Settings) -> Callable[[str], bool]:
    """Whether an address is that of a proxy that the operator has named."""
    proxies = tuple(ipaddress.ip_network(p, strict=False) for p in settings.proxies)

    def named(peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in proxy for proxy in proxies)

    return named


def canonical(path: str, root: str = "") -> str | None:
    """The path without the prefix ``root``, whether a proxy strips or keeps it.

    None for a path that another layer could read otherwise: decoded once more, with its dots
    resolved, with backslashes or doubled slashes; or that no file system would take.
    """
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :] or "/"
    odd = "%" in path or "\\" in path or "//" in path or "\ufffd" in path
    if odd or not path.startswith("/") or not path.isprintable():
        return None
    parts = path.split("/")
    if any(
        part in (".", "..") or len(part.encode("utf-8", "replace")) > _LONGEST for part in parts
    ):
        return None
    return path if len(parts) <= _DEEPEST else None


def host_name(host: str) -> str | None:
    """The name in a Host header, without port; None where it is no host at all."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        return None
    if not name or parts.path or parts.query or parts.fragment or "@" in host:
        return None
    return name if name.isascii() and name.isprintable() and " " not in name else None


def same_host(origin: str, host: str) -> bool:
    """Whether an origin (``https://name:port``) is reached under this Host; default ports are none."""
    scheme, _, rest = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return rest.removesuffix(port) == host.removesuffix(port)


def _parts(scope: Any, name: bytes) -> list[str]:
    """A header's values, of all its lines."""
    lines = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]
    return [part.strip() for line in lines for part in line.split(",")]


def _bare(address: str) -> str:
    """An address of X-Forwarded-For without its port: ``1.2.3.4:567``, ``[2001:db8::1]:567``."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_far(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_global
    except ValueError:
        return False
