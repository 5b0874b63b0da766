"""C, D and E: events carry no foreign file, a tab is its owner's, and nothing grows without bound."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import httpx
import psutil

from tests.browser.driver import Server
from tests.security.strangers import GRADIO, Stranger
from webui.sessions import COOKIE, Signer, load_key

Make = Callable[[], Stranger]


@contextmanager
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """An address of this machine's, and what has been asked of it."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def work() -> None:
            while True:
                try:
                    connection, _ = sock.accept()
                except OSError:
                    return
                with connection:
                    seen.append(connection.recv(1000))

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/x.png", seen
        sock.shutdown(socket.SHUT_RDWR)


def test_no_input_of_any_event_fetches_an_address(stranger: Make) -> None:
    visitor = stranger()
    visitor.event(None, "load").raise_for_status()
    mark = {"_type": "gradio.FileData"}
    with listener() as (url, seen):
        file = {"path": url, "url": url, "meta": mark}
        values = cycle([file, [file], {"text": "", "files": [file]}, {"url": url}])
        for call in visitor.config["dependencies"]:
            for at in range(len(call["inputs"])):
                data = [None] * len(call["inputs"])
                data[at] = next(values)
                body = {"data": data, "fn_index": call["id"], "session_hash": visitor.session}
                route = "queue/join" if at % 2 else "run/predict"
                assert visitor.http.post(f"{GRADIO}/{route}", json=body).status_code == 400
        assert not seen


def test_another_visitors_upload_is_no_input(stranger: Make) -> None:
    mine, other = stranger(), stranger()
    file = {"path": mine.uploaded(), "meta": {"_type": "gradio.FileData"}}
    other.event(None, "load").raise_for_status()
    for value in ({"text": "hello", "files": [file]}, file):
        answer = other.event("box", "submit", value)
        assert answer.status_code == 400
        assert "not uploaded by you" in answer.json()["error"]
    assert other.event("picture", "input", file).status_code == 400
    assert mine.event("picture", "input", file).status_code == 200


def test_a_session_hash_is_of_no_use_to_a_stranger(stranger: Make) -> None:
    victim, thief = stranger(), stranger()
    assert victim.ask("count 40").status_code == 200
    follow = next(d for d in victim.config["dependencies"] if d["api_name"] == "attach")
    body = {"data": [None], "fn_index": follow["id"], "session_hash": victim.session}
    event = victim.http.post(f"{GRADIO}/queue/join", json=body).raise_for_status().json()
    thief.session = victim.session
    assert (
        thief.http.get(f"{GRADIO}/queue/data", params={"session_hash": victim.session}).status_code
        == 404
    )
    assert thief.http.get(f"{GRADIO}/heartbeat/{victim.session}").status_code == 404
    assert thief.http.post(f"{GRADIO}/queue/join", json=body).status_code == 404
    assert thief.event("box", "stop").status_code == 404
    for route in ("reset", "cancel"):
        sent = {
            "event_id": event["event_id"],
            "session_hash": victim.session,
            "fn_index": follow["id"],
        }
        assert thief.http.post(f"{GRADIO}/{route}", json=sent).status_code == 404
    words = victim.http.get(f"{GRADIO}/queue/data", params={"session_hash": victim.session}).text
    assert "40" in words
    assert "process_completed" in words


def test_a_stream_of_a_tab_that_has_none_is_absent(server: Server, stranger: Make) -> None:
    visitor = stranger()
    for session in (visitor.session, "abcdef"):
        answer = visitor.http.get(f"{GRADIO}/queue/data", params={"session_hash": session})
        assert answer.status_code == 404
    assert "Traceback" not in server.log()


def test_two_session_hashes_are_none(stranger: Make) -> None:
    mine, other = stranger(), stranger()
    mine.event(None, "load").raise_for_status()
    query = f"session_hash={other.session}&session_hash={mine.session}"
    assert other.http.get(f"{GRADIO}/queue/data?{query}").status_code == 404
    assert other.http.get(f"{GRADIO}/queue/data").status_code == 404


def test_who_has_no_cookie_leaves_nothing_behind(server: Server, stranger: Make) -> None:
    visitor = stranger()
    with httpx.Client(base_url=server.url) as http:
        files = {"files": ("p.png", b"\x89PNG\r\n" + b"x" * 100, "image/png")}
        assert http.post(f"{GRADIO}/upload", files=files).status_code == 403
        for route in ("run/predict", "queue/join"):
            assert (
                http.post(f"{GRADIO}/{route}", json=visitor.body(None, "load")).status_code == 403
            )
        assert http.get(f"{GRADIO}/heartbeat/abcdef").status_code == 404
        assert "set-cookie" not in http.get("/theme.css").headers
        for page in ("/", "/config"):
            http.cookies.clear()
            answer = http.get(page)
            assert "set-cookie" in answer.headers
            assert answer.headers["cache-control"] == "no-store"


def test_long_texts_stop_at_the_edge(stranger: Make) -> None:
    visitor = stranger()
    visitor.event(None, "load").raise_for_status()
    assert (
        visitor.event("box", "submit", {"text": "x" * 30_000_000, "files": []}).status_code == 413
    )
    assert visitor.event("box", "submit", {"text": "x" * 200_000, "files": []}).status_code == 400
    assert visitor.event("search", "change", "x" * 90_000).status_code == 200
    answer = visitor.http.post(f"{GRADIO}/run/predict", content=(b"x" * 60_000 for _ in range(40)))
    assert answer.status_code == 413


def test_an_attacker_with_a_new_cookie_for_each_request_fills_nothing(
    server: Server, data: Path, stranger: Make
) -> None:
    """The tabs of 450 visitors, of half a megabyte each, beside one whose stream is open."""
    victim = stranger()
    assert victim.ask("count 400").status_code == 200
    follow = next(d for d in victim.config["dependencies"] if d["api_name"] == "attach")
    body = {"data": [None], "fn_index": follow["id"], "session_hash": victim.session}
    victim.http.post(f"{GRADIO}/queue/join", json=body).raise_for_status()
    process = psutil.Process(server.process.pid if server.process else 0)
    search = victim.body("search", "change", "x" * 50_000)
    query = {"session_hash": victim.session}
    signer = Signer(load_key(data))
    with victim.http.stream("GET", f"{GRADIO}/queue/data", params=query) as stream:
        lines = stream.iter_lines()
        assert next(lines)
        before = process.memory_info().rss
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for n in range(450):
                cookie = {"cookie": f"{COOKIE}={signer.cookie(signer.new_visitor())}"}
                event = {**search, "session_hash": f"evil{n}"}
                answer = http.post(f"{GRADIO}/run/predict", json=event, headers=cookie)
                assert answer.status_code in (200, 429)
        grown = (process.memory_info().rss - before) / 2**20
        assert any("process_completed" in line for line in lines)
    assert grown < 150, f"{grown:.0f} MB"
