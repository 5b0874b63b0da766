"""Under which address the server is asked, and by a page of which address."""

from __future__ import annotations

import logging
from typing import Any

from starlette.responses import Response

from webui.asgi.front import host_name, same_host
from webui.asgi.scope import Notices, header, refusal
from webui.settings import Settings, is_loopback

log = logging.getLogger(__name__)

SAFE = ("GET", "HEAD", "OPTIONS")


class Place:
    """Refuses foreign names and foreign pages, with the flag that lets one in.

    Args:
        origins: further addresses of the page; may grow while the server runs, by a share link.
    """

    def __init__(self, settings: Settings, origins: set[str]) -> None:
        self._settings, self._origins = settings, origins
        self._notices = Notices(log)

    def refuse(self, scope: Any) -> Response | None:
        """The answer to a request that may not be here; None for one that may."""
        host = header(scope, b"host")
        if not self._known_host(host):
            self._notices.warn(
                f"host {host}",
                "the address %s is not known to this server; if it is reached under that name, "
                "start it with --origins https://%s",
                host,
                host,
            )
            return refusal(scope, 403, "refused_host", host=host)
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
        """Against DNS rebinding: a server for this machine alone answers to its own names only."""
        if not self._settings.loopback or is_loopback(host_name(host) or ""):
            return True
        return any(same_host(origin, host) for origin in self._origins)

    def _same(self, origin: str, host: str) -> bool:
        return origin in self._origins or same_host(origin, host)
