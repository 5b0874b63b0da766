"""B and F: no spelling of a path reaches what is another visitor's, with and without a prefix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.browser.driver import Server, slow_server
from tests.security.sockets import Wire
from tests.security.strangers import GRADIO, Stranger
from tests.tiny_picture import picture

Make = Callable[[], Stranger]


@pytest.fixture(scope="module", params=["", "/ui"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A server, and the prefix that it was told."""
    flags = ["--root-path", request.param] if request.param else []
    data = tmp_path_factory.mktemp("paths") / "data"
    running = slow_server(data, delay=0.01, flags=flags).start()
    yield running, request.param
    running.kill()


PREFIXES = (
    f"{GRADIO}/file=", f"{GRADIO}/file/", "/file=", "/file/", f"{GRADIO}/proxy=", "/proxy=",
    f"{GRADIO}/stream/", f"/x/..{GRADIO}/file=", f"{GRADIO}/./file=", f"/{GRADIO}/file=",
    "/gradio%5fapi/file=", f"{GRADIO}/file%3D", "/pictures/../gradio_api/file=", "/static/", "/assets/",
    f"{GRADIO}/deep_link?x=",
)  # fmt: skip


def shapes(path: str) -> list[str]:
    """One path in twenty spellings."""
    folder, name = os.path.split(path)
    parent, last = os.path.split(folder)
    twisted = [
        path, "/" + path, "//" + path, path + "/", path + "%00", path + "/.", folder + "//" + name,
        f"{folder}/./{name}", f"{folder}/x/../{name}", f"{parent}/x/../{last}/{name}",
        path.replace("/", "\\"), path[1:], "file://" + path, name, f"..{path}", path + "?a=b",
        path + "#x", path.upper(),
    ]  # fmt: skip
    return [*twisted, "http://127.0.0.1:9" + path, "." + path]


def encodings(path: str) -> set[str]:
    """Plain, and encoded one to three times."""
    found, now = {path}, path
    for _ in range(3):
        now = quote(now, safe="")
        found.add(now)
    return found | {quote(path), quote(quote(path))}


def spellings() -> Iterator[tuple[str, Callable[[str], set[str]]]]:
    """Each prefix, and what gives the spellings of a path that are tried behind it."""
    for prefix in PREFIXES:
        yield (
            prefix,
            lambda path: {
                spelt
                for shape in shapes(path)
                for spelt in encodings(shape)
                if not any(c in spelt for c in " \r\n")
            },
        )


def raw(server: Server, method: str, target: str, cookie: str, extra: str = "") -> bytes:
    """An answer to exactly this request line; clients would tidy it up."""
    with Wire(server, cookie) as wire:
        return wire.ask(method, target, extra)


def without_date(answer: bytes) -> list[bytes]:
    """An answer's lines but for the time of day."""
    return [line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:")]


@pytest.mark.parametrize("how", ["GET", "HEAD", "Range", "WebSocket"])
def test_no_spelling_reaches_another_visitors_upload(place: tuple[Server, str], how: str) -> None:
    server, root = place
    mine, other = Stranger(server.url), Stranger(server.url)
    secret = picture((18, 171, 52))
    path = mine.uploaded(secret)
    assert mine.file(path).content == secret
    asked = 0
    with Wire(server, other.cookie) as wire:
        for prefix, spelt in ((p, s) for p, of in spellings() for s in of(path)):
            for before in {"", root}:
                if how == "WebSocket":
                    to = quote(prefix + spelt, safe="")
                    answer = wire.socket(f"{before}/streams?to={to}")
                else:
                    method, extra = ("GET", "Range: bytes=0-\r\n") if how == "Range" else (how, "")
                    answer = wire.ask(method, before + prefix + spelt, extra)
                asked += 1
                assert secret not in answer, (before, prefix, spelt)
                assert b"image/png" not in answer.lower(), (before, prefix, spelt)
                assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5")), (
                    before,
                    prefix,
                    spelt,
                )
                assert answer.startswith(b"HTTP/1.1 "), (before, prefix, spelt)
    assert asked > 1300
    assert "Traceback" not in server.log()


def test_the_one_who_asks_sees_his_own_in_each_of_these_ways(place: tuple[Server, str]) -> None:
    server, _ = place
    mine = Stranger(server.url)
    secret = picture((18, 52, 171))
    path = mine.uploaded(secret)
    with Wire(server, mine.cookie) as wire:
        assert wire.ask("GET", f"{GRADIO}/file={path}").endswith(b"\r\n\r\n" + secret)
        assert b"image/png" in wire.ask("HEAD", f"{GRADIO}/file={path}")
        ranged = wire.ask("GET", f"{GRADIO}/file={path}", "Range: bytes=0-3\r\n")
        assert ranged.startswith(b"HTTP/1.1 206")
        assert ranged.endswith(b"\r\n\r\n" + secret[:4])
        opened = wire.socket(f"/streams?to={quote(f'{GRADIO}/heartbeat/{mine.session}', safe='')}")
        assert opened.startswith(b"HTTP/1.1 101")
        assert b"event-stream" in opened


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "PUT"])
def test_no_method_tells_of_it_either(place: tuple[Server, str], method: str) -> None:
    server, root = place
    mine, other = Stranger(server.url), Stranger(server.url)
    path = mine.uploaded(picture((171, 18, 52)))
    for before in {"", root}:
        there = raw(
            server, method, f"{before}{GRADIO}/file={path}", other.cookie, "Range: bytes=0-3\r\n"
        )
        nowhere = raw(
            server,
            method,
            f"{before}{GRADIO}/file={path[:-1]}",
            other.cookie,
            "Range: bytes=0-3\r\n",
        )
        assert without_date(there) == without_date(nowhere)


@pytest.mark.parametrize(
    "name",
    [
        "computer%20vision.png",
        "50%25.png",
        "50%.png",
        "a b.png",
        "图片.png",
        "a#b?.png",
        "a+b&c.png",
        "x" * 300 + ".png",
    ],
)
def test_an_own_file_is_shown_whatever_it_is_called(place: tuple[Server, str], name: str) -> None:
    server, root = place
    mine = Stranger(server.url)
    path = mine.uploaded(picture(), name)
    for before in {"", root}:
        for spelt in (path, quote(path), quote(path, safe="")):
            assert mine.http.get(f"{before}{GRADIO}/file={spelt}").status_code == 200, spelt


def test_a_websocket_reaches_no_file(place: tuple[Server, str]) -> None:
    server, root = place
    mine, other = Stranger(server.url), Stranger(server.url)
    path = mine.uploaded(picture((52, 171, 18)))
    targets = (
        f"{GRADIO}/file={path}",
        f"{GRADIO}/queue/data/../file={path}",
        f"{GRADIO}/heartbeat/../file={path}",
        f"{GRADIO}/heartbeat/%2e%2e/file={path}",
        f"http://127.0.0.1{GRADIO}/queue/data",
    )
    for target in targets:
        for before in {"", root}:
            address = f"ws://127.0.0.1:{server.port}{before}/streams?to={quote(target, safe='')}"
            assert b"PNG" not in socket_answer(address, other.cookie), target


def socket_answer(address: str, cookie: str) -> bytes:
    """All that comes over a WebSocket until it is closed, which may be at once."""
    said = b""
    with (
        suppress(WebSocketException),
        connect(address, additional_headers={"Cookie": cookie}) as ws,
    ):
        while True:
            piece = ws.recv(timeout=10)
            said += piece.encode() if isinstance(piece, str) else piece
    return said


@pytest.mark.parametrize("kept", [False, True])
def test_the_page_works_behind_a_prefix(place: tuple[Server, str], kept: bool) -> None:
    server, root = place
    if not root and kept:
        return
    visitor = Stranger(server.url, prefix=root if kept else "")
    assert visitor.config["root"].endswith(root)
    assert visitor.ask("hello").status_code == 200
    other = Stranger(server.url, prefix=root if kept else "")
    for closed in (
        f"{GRADIO}/deep_link?session_hash={visitor.session}",
        f"{GRADIO}/info",
        "/monitoring",
        "/openapi.json",
        f"{GRADIO}/dev/reload",
    ):
        assert other.http.get(closed).status_code == 404


@pytest.mark.parametrize("kept", [False, True])
def test_a_login_behind_a_prefix(tmp_path: Path, kept: bool) -> None:
    flags = ["--root-path", "/ui", "--auth", "ann:secret"]
    server = slow_server(tmp_path / "data", flags=flags).start()
    try:
        base = server.url.rstrip("/") + ("/ui" if kept else "")
        with httpx.Client(base_url=base) as http:
            page = http.get("/", headers={"accept": "text/html"})
            assert page.status_code == 303
            assert page.headers["location"] == "/ui/login"
            assert http.get("/config").status_code == 401
            form = http.get("/login")
            assert form.status_code == 200
            assert 'name="password"' in form.text
            entered = http.post("/login", data={"name": "ann", "password": "secret"})
            assert (entered.status_code, entered.headers["location"]) == (303, "/ui/")
            assert http.get("/config").status_code == 200
            assert http.get("/", headers={"accept": "text/html"}).status_code == 200
    finally:
        server.kill()
