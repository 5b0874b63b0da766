"""Ten tabs at once, and tabs that go away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets
import websockets.sync.client
from driver import PATIENCE, Server, Talk, picture, slow_server

from webui.sessions import COOKIE, Signer, load_key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One answer at a time, so that a line forms."""
    data: Path = tmp_path_factory.mktemp("crowd") / "data"
    running = slow_server(data, delay=0.03, slots=1).start()
    yield running
    running.kill()


def test_ten_tabs_wait_in_line_and_get_their_own_answers(tabs: Callable[..., Talk]) -> None:
    crowd = [tabs() for _ in range(10)]
    for talk in crowd:
        talk.page.goto(f"{talk.url}?chat=new", wait_until="commit")
    for talk in crowd:
        talk.ready()
        talk.give(picture())
    counts = [9000, *range(5, 14)]  # the first one holds the line up until all have asked
    for talk, count in zip(crowd, counts, strict=True):
        talk.send(f"count {count}")
    places = set()
    for talk in crowd[3:]:
        talk.page.wait_for_function(
            "/in line/.test(document.querySelector('.turn.live .state')?.innerText || '')"
        )
        said = talk.page.inner_text(".turn.live .state")
        match = re.match(r"(\d+)(st|nd|rd|th) in line", said)
        assert match, said
        places.add(int(match[1]))
    assert len(places) >= 4, places
    crowd[0].stop()
    for talk, count in zip(crowd[1:], counts[1:], strict=True):
        talk.wait_idle()
        assert talk.answers() == [" ".join(map(str, range(1, count + 1)))]


def test_who_waits_sees_about_how_long_until_that_has_passed(tabs: Callable[..., Talk]) -> None:
    first, second = tabs().open("?chat=new"), tabs().open("?chat=new")
    for talk in (first, second):
        talk.give(picture())
    first.ask("count 200")  # now it is known that answers take about 6 s
    first.send("count 9000")  # but this one takes longer
    first.wait_words(r"\b3\b")
    second.send("hello")
    for words in ("^1st in line, about \\d+ s…$", "^1st in line…$"):
        second.page.wait_for_function(
            "p => new RegExp(p).test(document.querySelector('.turn.live .state')?.innerText || '')",
            arg=words,
        )
    first.stop()
    second.wait_idle()
    assert second.answers() == ["Turn 1: hello"]


def test_a_closed_tab_neither_blocks_nor_loses_its_answer(tabs: Callable[..., Talk]) -> None:
    first, second = tabs().open("?chat=new"), tabs().open("?chat=new")
    for talk in (first, second):
        talk.give(picture())
    first.send("count 200")
    first.wait_words(r"\b3\b")
    address = first.page.url
    first.page.close()
    assert second.ask("hello") == "Turn 1: hello"
    again = tabs().open(address.split("/")[-1])
    again.wait_idle()
    assert again.answers() == [" ".join(map(str, range(1, 201)))]


def test_streams_are_for_this_page_only(server: Server) -> None:
    signer = Signer(load_key(server.data))
    cookie = {"Cookie": f"{COOKIE}={signer.cookie(signer.new_visitor())}"}
    address = server.url.replace("http", "ws") + "streams?to="
    beat = "/gradio_api/heartbeat/abcd"
    own = server.url.rstrip("/")
    with websockets.sync.client.connect(
        address + beat,
        origin=own,
        additional_headers=cookie,  # type: ignore[arg-type]
    ) as socket:
        assert '"status": 200' in str(socket.recv(PATIENCE))
    for to, origin in ((beat, "https://evil.example"), ("/gradio_api/info", None), ("", None)):
        with pytest.raises(websockets.InvalidStatus):
            websockets.sync.client.connect(address + to, origin=origin).close()  # type: ignore[arg-type]


def test_without_websockets_plain_requests_serve(tabs: Callable[..., Talk]) -> None:
    talk = tabs()
    talk.page.add_init_script(
        "window.WebSocket = class { constructor() { setTimeout(() => this.onclose({code: 1006})) } close() {} }"
    )
    talk.open("?chat=new")
    talk.give(picture())
    assert talk.ask("hello") == "Turn 1: hello"
