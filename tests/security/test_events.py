"""N and E: events with values that no page sends get a plain answer, and the log stays short."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.browser.driver import Server
from tests.security.strangers import GRADIO, Stranger
from webui.tabs import STREAMS

Make = Callable[[], Stranger]
ODD = (
    None, True, -1, 2**70, 1.5, float("nan"), float("inf"), "", "\ud800", "a\0b", [], [None], {}, {"a": 1},
    {"text": None}, {"text": 5, "files": []}, {"text": "x"}, {"text": "x", "files": None},
    {"text": "x", "files": ["x"]}, {"text": "\ud800", "files": []}, {"__type__": "update"}, "/etc/passwd",
)  # fmt: skip


def post(visitor: Stranger, route: str, **body: Any) -> httpx.Response:
    """An event of a visitor's tab, also with what only Python calls JSON."""
    sent = json.dumps({**body, "session_hash": visitor.session})
    kind = {"content-type": "application/json"}
    return visitor.http.post(f"{GRADIO}/{route}", content=sent, headers=kind)


@pytest.mark.parametrize("route", ["run/predict", "queue/join"])
def test_odd_values_of_any_input_are_no_fault_of_the_server(
    server: Server, stranger: Make, route: str
) -> None:
    begun = len(server.log())
    visitor = stranger()
    visitor.event(None, "load").raise_for_status()
    calls = {(*d["inputs"], d["backend_fn"]): d for d in visitor.config["dependencies"]}
    for call in calls.values():  # one of those that take the same
        usual = [visitor._values.get(i) for i in call["inputs"]]
        for number, odd in enumerate(ODD):
            data = list(usual)
            if data:
                data[number % len(data)] = odd
            answer = post(visitor, route, data=data, fn_index=call["id"])
            assert answer.status_code in (200, 400, 429), (call["targets"], odd)
            if answer.status_code == 429:  # enough wait to be read
                visitor.session = f"{visitor.session[:8]}{number}{call['id']}"
    log = server.log()[begun:]
    assert "Traceback" not in log
    assert len(log) < 20_000


@pytest.mark.parametrize("route", ["run/predict", "queue/join"])
def test_events_that_the_page_does_not_have(server: Server, stranger: Make, route: str) -> None:
    visitor = stranger()
    load = visitor.body(None, "load")
    browsers = [d["id"] for d in visitor.config["dependencies"] if not d["backend_fn"]]
    for number in (None, 9999, 2**31 - 1, *browsers):
        assert post(visitor, route, data=load["data"], fn_index=number).status_code == 400
    for data in ([], load["data"][1:], [*load["data"], None]):
        assert post(visitor, route, data=data, fn_index=load["fn_index"]).status_code == 400
    for trigger in (0, 9999, 2**31 - 1):
        sent = {"data": load["data"], "fn_index": load["fn_index"], "trigger_id": trigger}
        assert post(visitor, route, **sent).status_code == 200
    assert "Traceback" not in server.log()


def test_half_a_character_is_asked_and_searched(server: Server, stranger: Make) -> None:
    visitor = stranger()
    visitor.event(None, "load").raise_for_status()
    file = {"path": visitor.uploaded(), "meta": {"_type": "gradio.FileData"}}
    question = {"text": "hello \ud800", "files": [file]}
    assert "hello ?" in post(visitor, "run/predict", **visitor.body("box", "submit", question)).text
    assert (
        post(visitor, "run/predict", **visitor.body("search", "change", "\udfff")).status_code
        == 200
    )
    assert "Traceback" not in server.log()


def test_more_streams_of_a_tab_than_it_may_have(server: Server, stranger: Make) -> None:
    visitor = stranger()
    held = [
        visitor.http.stream("GET", f"{GRADIO}/heartbeat/{visitor.session}") for _ in range(STREAMS)
    ]
    try:
        for each in held:
            assert each.__enter__().status_code == 200
        answer = visitor.http.get(f"{GRADIO}/heartbeat/{visitor.session}")
        assert answer.status_code == 429
    finally:
        for each in held:
            each.__exit__(None, None, None)
    assert "Traceback" not in server.log()


def test_a_stream_of_events_that_are_not_there(server: Server, stranger: Make) -> None:
    """Never joined; and read twice at once, where one of the two leaves and takes all with it."""
    visitor = stranger()
    query = {"session_hash": visitor.session}
    assert visitor.http.get(f"{GRADIO}/queue/data", params=query).status_code == 404
    assert visitor.ask("count 300").status_code == 200
    follow = next(d for d in visitor.config["dependencies"] if d["api_name"] == "attach")
    post(visitor, "queue/join", data=[None], fn_index=follow["id"]).raise_for_status()
    with visitor.http.stream("GET", f"{GRADIO}/queue/data", params=query) as stays:
        with visitor.http.stream("GET", f"{GRADIO}/queue/data", params=query) as leaves:
            assert leaves.status_code == 200
        with suppress(httpx.RemoteProtocolError):
            stays.read()
    assert "Traceback" not in server.log()


def test_nothing_of_a_visitor_stays_in_a_cache(stranger: Make) -> None:
    """With a cookie as without: pages, uploads, pictures, events, and what is not there."""
    visitor = stranger()
    path = visitor.uploaded()
    for target in (
        "/",
        "/config",
        f"{GRADIO}/file={path}",
        f"{GRADIO}/file={path}x",
        "/pictures/abc",
    ):
        rule = visitor.http.get(target).headers.get("cache-control", "")
        assert "no-store" in rule or "private" in rule, target
    assert "no-store" in visitor.event(None, "load").headers["cache-control"]
