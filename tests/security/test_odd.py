"""N: requests that no program means to send: a plain answer, and no traceback in the log."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.browser.driver import Server
from tests.security.strangers import GRADIO, Stranger
from tests.tiny_picture import picture

Make = Callable[[], Stranger]


def said(server: Server, head: str, body: bytes = b"") -> bytes:
    """The answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(head.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n" + body)
        parts = []
        while piece := sock.recv(65536):
            parts.append(piece)
    return b"".join(parts)


HOST = "Host: 127.0.0.1\n"
TARGETS = (
    "/%00", "/pictures/%00", f"{GRADIO}/file=%00", f"{GRADIO}/heartbeat/%00", "/assets/%00.js", "/static/%00",
    "/%ff%fe", "/pictures/%ed%a0%80", "/?chat=%00%ff", "/?chat=" + "x" * 8000, "/config?page=%00&deep_link=../../x",
    f"{GRADIO}/queue/data?session_hash=%00", f"{GRADIO}/queue/data?session_hash[]=a", "/streams?to=%ff", "*", "/%",
    "/assets/../../x", "/assets/" + "a/" * 2000, "/static/" + "x" * 5000, "//", "/login?%00", "/healthz/%00",
)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t[:30])
def test_odd_targets(server: Server, stranger: Make, target: str) -> None:
    cookie = stranger().cookie
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        answer = said(
            server,
            f"{method} {target} HTTP/1.1\n{HOST}Cookie: {cookie}\nContent-Length: 0\nConnection: close\n",
        )
        assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    "host",
    ["[::1", "[", "a b", "%00", "127.0.0.1:x", "127.0.0.1:99999999", "é", "u:p@127.0.0.1", ""],
)
def test_odd_hosts(server: Server, host: str) -> None:
    for path in ("/", "/healthz", "/config"):
        answer = said(server, f"GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n")
        assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    "value",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-1",
        "bytes=0-0,1-1,2-2",
        "bytes=-0",
        "bytes=99999999-",
        "x=1-2",
        "bytes=0-" + "9" * 500,
        "bytes=" + "0-0," * 1000,
        "bytes=--1",
        "\x00",
    ],
    ids=lambda v: v[:20],
)
def test_odd_ranges(server: Server, stranger: Make, value: str) -> None:
    visitor = stranger()
    path = visitor.uploaded(picture())
    for target in (f"{GRADIO}/file={path}", "/theme.css", "/static/img/logo.svg"):
        head = f"GET {target} HTTP/1.1\n{HOST}Cookie: {visitor.cookie}\nRange: {value}\nConnection: close\n"
        answer = said(server, head)
        assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
        assert len(answer) < 100_000
    assert "Traceback" not in server.log()


FORMS = {
    "no boundary": ("multipart/form-data", b"x"),
    "empty boundary": ('multipart/form-data; boundary=""', b"--\r\n\r\n"),
    "not whole": ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'),
    "no file": ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n'),
    "charset": ("multipart/form-data; boundary=b; charset=bogus", b'--b\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\nx\r\n--b--\r\n'),
    "no headers": ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
    "rubbish": ("multipart/form-data; boundary=b", bytes(range(256)) * 10),
    "json": ("application/json", b"{}"),
    "text": ("text/plain; charset=utf-7", b"+AAA-"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_odd_forms(server: Server, stranger: Make, name: str) -> None:
    kind, body = FORMS[name]
    cookie = stranger().cookie
    for path in (f"{GRADIO}/upload", "/login", f"{GRADIO}/run/predict", f"{GRADIO}/queue/join"):
        head = f"POST {path} HTTP/1.1\n{HOST}Cookie: {cookie}\nContent-Type: {kind}\nContent-Length: {len(body)}\nConnection: close\n"
        answer = said(server, head, body)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 303")), (path, answer[:200])
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded; charset=bogus",
        "application/x-www-form-urlencoded; charset=utf-16",
        "multipart/form-data; boundary=b; charset=bogus",
    ],
)
def test_odd_charsets_at_the_login(server: Server, kind: str) -> None:
    body = (
        b"name=%ff%fe&password=%00"
        if "url" in kind
        else b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n--b--\r\n'
    )
    head = f"POST /login HTTP/1.1\n{HOST}Content-Type: {kind}\nContent-Length: {len(body)}\nConnection: close\n"
    assert not said(server, head, body).startswith(b"HTTP/1.1 5")
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "/", "\\", "a/", "\x01", "%", '"', "CON", "x" * 5000]
)
def test_odd_names_of_uploads(server: Server, stranger: Make, name: str) -> None:
    visitor = stranger()
    answer = visitor.upload(picture(), name)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        assert visitor.file(answer.json()[0]).status_code == 200
    assert "Traceback" not in server.log()


def test_a_cookie_that_is_none_any_more_in_an_open_tab(stranger: Make) -> None:
    visitor = stranger()
    visitor.event(None, "load").raise_for_status()
    visitor.http.cookies.clear()
    answer = visitor.event("search", "change", "x")
    assert answer.status_code == 403
    assert "Reload" in answer.json()["error"]
    visitor.http.get("/config")  # another visitor by now
    assert visitor.event("search", "change", "x").status_code == 404
