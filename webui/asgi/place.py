"""Under which address the server is asked, and by a page of which address."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from webui.asgi.front import same_host
from webui.asgi.hosts import may_post
from webui.asgi.scope import Notices, header, refusal

log = logging.getLogger(__name__)

SAFE = ("GET", "HEAD", "OPTIONS")


class Place:
    """Refuses foreign names and foreign pages, with the flag that lets one in.

    Args:
        loopback: whether only this machine can reach the server.
        asks_login: whether visitors need a login.
        origins: further addresses of the page; may grow while the server runs, by a share link.
    """

    def __init__(self, loopback: bool, asks_login: Callable[[], bool], origins: set[str]) -> None:
        self._loopback, self._asks_login, self._origins = loopback, asks_login, origins
        self._notices = Notices(log)

    def refuse(self, scope: Any) -> Response | None:
        """The answer to a request that may not be here; None for one that may."""
        host = header(scope, b"host")
        if not self._known_host(host):
            self._notices.warn(
                f"host {host}",
                "the address %s is not known to this server; if it is reached under that name, "
                "start it with --origins %s://%s",
                host,
                scope["scheme"],
                host,
            )
            return refusal(scope, 403, "refused_host", host=host, scheme=scope["scheme"])
        origin = header(scope, b"origin").lower()
        crossing = scope.get("method", "GET") not in SAFE or scope["type"] == "websocket"
        if origin and crossing and not self._same(origin, host):
            self._notices.warn(
                f"origin {origin}",
                "a page of %s asked this server, which was reached as %s, and was refused; if that "
                "is its own address, start it with --origins %s",
                origin,
                host,
                origin,
            )
            return refusal(scope, 403, "refused_origin", origin=origin)
        return None

    def _known_host(self, host: str) -> bool:
        """Against DNS rebinding; where a login is asked for, a rebound name has no cookie."""
        if not self._loopback and self._asks_login():
            return True
        return may_post(host, self._origins, loopback=self._loopback)

    def _same(self, origin: str, host: str) -> bool:
        return origin in self._origins or same_host(origin, host)
