"""Which names a server answers to when it asks for no login: against DNS rebinding.

A page of another site can give its own name this server's address. The browser then takes the two
for one site, and no check of origins tells them apart: only the name does.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import cache

from webui.asgi.front import host_name, same_host
from webui.settings import is_loopback


def may_post(host: str, origins: Iterable[str] = (), *, loopback: bool = False) -> bool:
    """Whether a request under this name may change anything.

    Nobody else can point these names here: addresses as such, ``localhost``, the machine's own
    name, and what the operator has named.

    Args:
        host: the Host header, with or without a port.
        origins: the addresses of ``--origins``, and the share link's.
        loopback: the server is for this machine alone: then other addresses are foreign too.
    """
    if any(same_host(origin.lower(), host.lower()) for origin in origins):
        return bool(host)
    name = (host_name(host.lower()) or "").removesuffix(".")
    if is_loopback(name):
        return True
    return not loopback and (_is_address(name) or name in own_names())


@cache
def own_names() -> frozenset[str]:
    """The machine's names, as it knows them without asking anybody."""
    name = socket.gethostname().lower().removesuffix(".")
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"} - {"", ".local"})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
