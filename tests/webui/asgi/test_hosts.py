"""Names under which a server without a login may be told anything."""

from __future__ import annotations

import socket

import pytest

from webui.asgi.hosts import may_post

ORIGINS = ("https://chat.example", "http://share.example:8080")
OWN = socket.gethostname().lower()
ANYWHERE = (
    "127.0.0.1:7860", "localhost:7860", "[::1]:7860", "chat.example", "CHAT.example",
    "share.example:8080",
)  # fmt: skip
BEYOND = ("192.0.2.7:7860", "[2001:db8::7]:7860", "[fe80::1%25eth0]:7860", f"{OWN}:7860", OWN)
FOREIGN = (
    "rebound.example:7860", "127.0.0.1.rebound.example", "127.rebound.example", "chat.example:81",
    "share.example", "localhost.rebound.example", f"{OWN}.rebound.example", "", ":7860", "[::1",
    "2130706433", "0x7f.1", "evil.example@127.0.0.1.rebound.example", "localhost.rebound.example.",
)  # fmt: skip


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("host", ANYWHERE)
def test_names_of_this_machine_and_of_the_operator_may(host: str, loopback: bool) -> None:
    assert may_post(host, ORIGINS, loopback=loopback)


@pytest.mark.parametrize("host", BEYOND)
def test_addresses_and_the_machines_name_may_where_it_listens_beyond_itself(host: str) -> None:
    assert may_post(host, ORIGINS)
    assert not may_post(host, ORIGINS, loopback=True)


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("host", FOREIGN)
def test_names_that_somebody_else_may_point_here_may_not(host: str, loopback: bool) -> None:
    assert not may_post(host, ORIGINS, loopback=loopback)
