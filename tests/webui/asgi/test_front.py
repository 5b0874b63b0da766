"""One reading of a request: path, host, scheme, sender."""

import asyncio
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.asgi.front import ADDRESS, Front, canonical, host_name, same_host
from webui.settings import Settings


def through(settings: Settings, origins: set[str] | None = None, **scope: Any) -> Any:
    """What the inner app sees of a request, or the status that it got instead."""
    seen: list[Any] = []

    async def app(inner: Any, receive: Any, send: Any) -> None:
        seen.append(inner)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    headers = [(k.encode(), v.encode()) for k, v in scope.pop("headers", {}).items()]
    if not any(key == b"host" for key, _ in headers):
        headers.insert(0, (b"host", b"127.0.0.1:7860"))
    full = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "scheme": "http",
        "root_path": "",
        "query_string": b"",
        "client": ("127.0.0.1", 5),
        "headers": headers,
        **scope,
    }
    asyncio.run(Front(app, settings, origins or set())(full, receive, send))
    return seen[0]


@pytest.mark.parametrize(
    "path", ["/", "/config", "/assets/a/b.js", "/gradio_api/file=/tmp/x/图 1.png"]
)
@pytest.mark.parametrize("sent", ["", "/ui"])
def test_the_prefix_goes_whether_the_proxy_strips_it_or_not(path: str, sent: str) -> None:
    inner = through(Settings(root_path="/ui"), path=sent + path)
    assert inner["path"] == path
    assert inner["root_path"] == ""
    assert unquote(inner["raw_path"].decode()) == path


def test_a_prefix_without_a_slash_is_sent_on() -> None:
    assert through(Settings(root_path="/ui"), path="/ui") == 308
    assert through(Settings(root_path="/ui"), path="/uix")["path"] == "/uix"


@pytest.mark.parametrize(
    "path",
    [
        "/a%2fb",
        "/a//b",
        "//a",
        "/a/../b",
        "/a/./b",
        "/..",
        "/a\\b",
        "/a\x00",
        "/a\nb",
        "a",
        "",
        "/\ufffd",
        "/a/..",
    ],
)
@pytest.mark.parametrize("root", ["", "/ui"])
def test_a_path_that_can_be_read_in_two_ways_is_none(path: str, root: str) -> None:
    assert canonical(path) is None
    if path.startswith("/"):
        assert canonical(root + path, root) is None


@given(st.text(max_size=40), st.sampled_from(["", "/ui", "/a/b"]))
def test_reading_a_canonical_path_again_changes_nothing(path: str, root: str) -> None:
    found = canonical(path, root)
    if found is not None:
        assert unquote(found) == found
        assert canonical(found) == found
        assert unquote(quote(found)) == found


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:7860", "127.0.0.1"), ("localhost", "localhost"), ("[::1]:80", "::1"),
        ("[::1", None), ("", None), ("a b", None), ("a/b", None), ("a:x", None), ("a:99999", None),
        ("u@evil.example", None), ("a?b", None), ("a#b", None), ("[evil]", None),
    ],
)  # fmt: skip
def test_hosts(host: str, name: str | None) -> None:
    assert host_name(host) == name


def test_a_host_that_is_none_is_refused() -> None:
    for host in ("[::1", "a/b", "u@127.0.0.1:7860", "a:x"):
        assert through(Settings(), headers={"host": host}) == 400


def test_default_ports_are_none() -> None:
    assert same_host("https://a.example", "a.example:443")
    assert same_host("http://a.example:80", "a.example")
    assert not same_host("https://a.example:8443", "a.example")


FORWARDED = {
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "https",
    "x-forwarded-for": "203.0.113.9",
    "x-gradio-server": "https://evil.example",
    "forwarded": "host=evil.example",
    "x-real-ip": "203.0.113.9",
}


def test_a_strangers_forwarded_headers_are_not_even_seen() -> None:
    inner = through(Settings(), headers=FORWARDED)
    assert dict(inner["headers"]) == {b"host": b"127.0.0.1:7860"}
    assert inner["scheme"] == "http"
    assert inner[ADDRESS] is None  # some proxy: who is behind it is not known


def test_a_named_proxy_is_believed() -> None:
    inner = through(Settings(proxies=("127.0.0.0/8",)), headers=FORWARDED)
    assert dict(inner["headers"]) == {b"host": b"evil.example"}
    assert inner["scheme"] == "https"
    assert inner[ADDRESS] == "203.0.113.9"


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),  # the first was said by the client
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("unknown", None),
        ("", None),
    ],
)
def test_the_sender_is_the_last_that_is_no_proxy(chain: str, address: str | None) -> None:
    settings = Settings(proxies=("127.0.0.1", "10.0.0.0/8"))
    assert through(settings, headers={"x-forwarded-for": chain})[ADDRESS] == address


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("127.0.0.1", {}, None),
        ("203.0.113.9", {}, "203.0.113.9"),
        ("8.8.8.8", {"x-forwarded-for": "1.1.1.1"}, "8.8.8.8"),  # it may have made the header up
        ("10.0.0.9", {"x-forwarded-for": "1.1.1.1"}, None),
        ("10.0.0.9", {"forwarded": "for=1.1.1.1"}, None),  # however a proxy says that it is one
        ("10.0.0.9", {"x-real-ip": "1.1.1.1"}, None),
        ("10.0.0.9", {"via": "1.1 proxy"}, None),
    ],
)
def test_who_sends_without_a_named_proxy(peer: str, headers: Any, address: str | None) -> None:
    assert through(Settings(), client=(peer, 5), headers=headers)[ADDRESS] == address


@pytest.mark.parametrize(
    ("chain", "hosts", "host"),
    [
        ("203.0.113.9", "evil.example, chat.example.org", "chat.example.org"),
        ("203.0.113.9, 10.0.0.1:80", "evil.example, chat.example.org, inner", "chat.example.org"),
        ("203.0.113.9, 10.0.0.1", "chat.example.org", "chat.example.org"),
        ("", "evil.example,chat.example.org", "chat.example.org"),
    ],
)
def test_what_stands_before_the_proxies_words_is_the_clients(
    chain: str, hosts: str, host: str
) -> None:
    settings = Settings(proxies=("127.0.0.1", "10.0.0.0/8"))
    headers = {"x-forwarded-for": chain, "x-forwarded-host": hosts}
    assert dict(through(settings, headers=headers)["headers"])[b"host"] == host.encode()


def test_a_proxy_that_is_named_with_its_port_is_still_one() -> None:
    settings = Settings(proxies=("127.0.0.1", "10.0.0.0/8"))
    headers = {"x-forwarded-for": "203.0.113.9:5, 10.0.0.1:80"}
    assert through(settings, headers=headers)[ADDRESS] == "203.0.113.9"


def test_the_scheme_of_a_named_address_is_known() -> None:
    origins = {"https://chat.example.org"}
    host = {"host": "chat.example.org"}
    assert through(Settings(), origins, headers=host)["scheme"] == "https"
    assert (
        through(Settings(), origins, headers=host, type="websocket", scheme="ws")["scheme"] == "wss"
    )
    assert through(Settings(), origins)["scheme"] == "http"
