"""Letters G and N: requests that are odd, greedy or never read; none is a 500 or fills the log."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
import websockets
import websockets.sync.client

from tests.browser.driver import Server
from tests.security.sockets import ask, connect, few_descriptors, is_closed, seconds, status
from tests.webui.visits import Visit
from webui.sessions import COOKIE, Signer, load_key

PATIENCE = 1.0
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"GET /streams?to=/gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CHUNKED = POST + b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("requests")
    with few_descriptors(folder, ("--patience", str(PATIENCE))) as running:
        yield running


@pytest.fixture(scope="module")
def signer(server: Server) -> Signer:
    """Makes cookies of this server's visitors without asking it."""
    return Signer(load_key(server.data))


def socket_to(server: Server, to: str, signer: Signer) -> websockets.sync.client.ClientConnection:
    """A stream of a new visitor."""
    cookie = {"Cookie": f"{COOKIE}={signer.cookie(signer.new_visitor())}"}
    address = f"ws://127.0.0.1:{server.port}/streams?to={to}"
    return websockets.sync.client.connect(address, additional_headers=cookie)


def was_ended(made: websockets.sync.client.ClientConnection) -> bool:
    try:
        while True:
            made.recv(20)
    except TimeoutError:
        return False
    except websockets.ConnectionClosed:
        return True


@pytest.mark.parametrize(
    "host",
    [b"[::1", b"::1]", b"[]", b"[v1.x]", b"a b", b"\xff", b"\xe2\x84\x80", b"localhost:99999",
     b"localhost:x", b"a@localhost", b"localhost/..", b"localhost?", b"localhost#", b"",
     b"localhost:" + b"1" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("name", [b"Host", b"X-Forwarded-Host"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS"])
def test_an_impossible_host_is_a_bad_request(
    server: Server, host: bytes, name: bytes, method: bytes
) -> None:
    rest = b"" if name == b"Host" else b"Host: localhost\r\n"
    for path in (b"/", b"/streams?to=/gradio_api/heartbeat/x"):
        sent = method + b" " + path + b" HTTP/1.1\r\n" + rest + name + b": " + host + b"\r\n\r\n"
        assert ask(server, sent) == 400
    assert "Traceback" not in server.log()


def test_an_impossible_origin_is_a_bad_request(server: Server) -> None:
    for origin in (b"http://[::1", b"http://a:99999", b"http://a:x"):
        assert ask(server, UPGRADE + b"Origin: " + origin + b"\r\n\r\n") == 400
    assert ask(server, UPGRADE + b"Origin: null\r\n\r\n") == 403
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:80", b"[::1]:7860", b"LOCALHOST:"])
def test_possible_hosts_are_served(server: Server, host: bytes) -> None:
    assert ask(server, b"GET /login HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == 303


def test_odd_ranges_of_a_picture_get_it_whole(server: Server) -> None:
    with Visit(server.url) as tab:
        tab.event(None, "load", '{"chat": "new"}')
        call = tab._calls[(tab._ids["scene"], "click")]
        body = {"data": [None] * len(call["inputs"]), "fn_index": call["id"]}
        told = tab._http.post(
            "/gradio_api/run/predict", json={**body, "session_hash": tab._session}
        ).text
        found = re.search("pictures/[0-9a-f]+", told)
        assert found, told
        whole = tab._http.get("/" + found[0]).content
        odd = [
            "0-0,2-3",
            "1-2-3",
            "\xb2-",
            "-",
            "9" * 5000 + "-",
            "--5",
            "-+5",
            "1_0-",
            "0x1-",
            "a-b",
        ]
        values = [f"bytes={each}" for each in odd] + [
            "",
            "x",
            "items=0-1",
            "bytes",
            "bytes=" + "0-0," * 3000,
        ]
        for value in values:
            answer = tab._http.get("/" + found[0], headers={"Range": value.encode("latin-1")})
            assert (answer.status_code, answer.content) == (200, whole), value
        part = tab._http.get("/" + found[0], headers={"Range": "bytes=1-4"})
        assert (part.status_code, part.content) == (206, whole[1:5])
        for value in (f"bytes={len(whole)}-", "bytes=5-2"):
            assert tab._http.get("/" + found[0], headers={"Range": value}).status_code in (400, 416)
    assert "Traceback" not in server.log()


def test_heads_are_bounded_also_when_they_come_at_once(server: Server) -> None:
    assert ask(server, HEAD + b"A: b\r\n" * 150 + b"\r\n") == 400
    assert ask(server, HEAD + b"A: " + b"b" * 60_000 + b"\r\n\r\n") == 400
    assert ask(server, b"GET /?" + b"b" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") == 400
    assert ask(server, HEAD + b"Cookie: " + b"b" * 20_000 + b"\r\n\r\n") == 200


def test_bodies_in_crumbs_are_refused_before_they_cost_much(server: Server) -> None:
    before = seconds(server)
    for _ in range(20):
        with connect(server, CHUNKED + b"1\r\na\r\n" * 40_000) as made:
            assert is_closed(made, 20)
    assert seconds(server) - before < 5
    ordinary = b"".join(b"%x;name=value\r\n%b\r\n" % (500, b"a" * 500) for _ in range(600))
    assert ask(server, CHUNKED + ordinary + b"0\r\n\r\n") not in (0, 400)


def test_rubbish_does_not_fill_the_log(server: Server) -> None:
    begun = len(server.log())
    broken = CHUNKED + b"zzz\r\n"
    early = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(300):
        for sent in (b"\x16\x03\x01\r\n\r\n", b"GET /\r\n\r\n", broken):
            connect(server, sent).close()
        with connect(server, early) as made:
            assert status(made) == 404  # answered before the body
            made.sendall(b"zzz\r\n")
    assert ask(server) == 200
    assert len(server.log()) - begun < 20_000
    assert "Traceback" not in server.log()


def test_requests_in_one_piece_are_all_answered(server: Server) -> None:
    with connect(server, b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20) as made:
        text = b""
        while text.count(b"HTTP/1.1 303") < 20:
            more = made.recv(65536)
            assert more, text
            text += more


def test_who_is_told_to_go_on_sends_the_body(server: Server, signer: Signer) -> None:
    cookie = f"Cookie: {COOKIE}={signer.cookie(signer.new_visitor())}\r\n".encode()
    head = b"POST /gradio_api/run/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
    with connect(server, head + cookie + b"Expect: 100-continue\r\n\r\n") as made:
        assert status(made) == 100
        made.sendall(b"a=b")
        text = b""
        while b"HTTP/1.1 400" not in text:
            more = made.recv(65536)
            assert more, text
            text += more


@pytest.mark.parametrize("many", [1, 2000])
def test_answers_that_nobody_reads_end(server: Server, many: int) -> None:
    """One that fits into what lies between, and a queue of them that does not."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(2)
        made.connect(("127.0.0.1", server.port))
        try:
            for _ in range(many):
                made.sendall(b"GET /theme.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except TimeoutError:  # the server does not read on while its answers wait
            pass
        assert made.recv(1)  # it is the server's now, not the kernel's
        ours = made.getsockname()[1]

        def there() -> bool:
            assert server.process is not None
            all_of = psutil.Process(server.process.pid).net_connections("tcp")
            return any(each.raddr and each.raddr.port == ours for each in all_of)

        end = time.monotonic() + 40 * PATIENCE
        while there() and time.monotonic() < end:
            time.sleep(0.2)
        assert not there()


def test_pings_whose_answers_nobody_reads_do_not_pile_up(server: Server) -> None:
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    with connect(server, UPGRADE + b"\r\n") as made:  # nothing reads here in the background
        assert status(made) == 101
        before = process.memory_info().rss
        ping = b"\x89\xfd" + b"\0\0\0\0" + b"a" * 125
        made.settimeout(3)
        sent = 0
        try:
            while sent < 40_000_000:
                sent += made.send(ping * 2000)
        except (TimeoutError, OSError):
            pass
        assert process.memory_info().rss - before < 12_000_000
    assert ask(server) == 200


def test_websockets_take_small_messages_in_few_pieces(server: Server, signer: Signer) -> None:
    with socket_to(server, "/gradio_api/heartbeat/large", signer) as made:
        made.recv(20)
        made.send("x" * 100_000)
        assert was_ended(made)
    with socket_to(server, "/gradio_api/heartbeat/pieces", signer) as made:
        made.recv(20)
        made.socket.sendall(
            b"\x01\x80\0\0\0\0".replace(b"\x80", b"\x80") + b"\x00\x80\0\0\0\0" * 5000
        )
        assert was_ended(made)
    assert "Traceback" not in server.log()


def test_websockets_are_bounded_apart_from_requests(server: Server, signer: Signer) -> None:
    """As streams, by new visitors without end: the oldest makes room, requests go on."""
    held = []
    refused = 0
    try:
        for number in range(200):
            try:
                held.append(socket_to(server, f"/gradio_api/heartbeat/many{number}", signer))
            except websockets.InvalidStatus:
                refused += 1
        assert ask(server) == 200
        still = 0
        for each in held:
            try:
                while True:
                    each.recv(0)
            except TimeoutError:
                still += 1
            except websockets.ConnectionClosed:
                pass
        assert still + refused > 0
        assert still <= 96
        with Visit(server.url) as tab:  # a newcomer's heartbeat has a place too
            tab.event(None, "load", '{"chat": "new"}')
    finally:
        for each in held:
            each.socket.close()
