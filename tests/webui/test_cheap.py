"""What a flood must not cost: the page is rendered once, an event makes little anew, newcomers pay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from gradio import routes
from gradio.blocks import BlocksConfig
from starlette.testclient import TestClient

from webui.asgi.turns import Turns
from webui.bounds import Client


def event(client: TestClient, name: str, kind: str) -> Any:
    """Trigger an event of a component as a tab does."""
    config = client.get("/config").json()
    ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    values = {c["id"]: c["props"].get("value") for c in config["components"]}
    call = next(d for d in config["dependencies"] if list(d["targets"][0]) == [ids[name], kind])
    data = [values.get(i) for i in call["inputs"]]
    body = {"data": data, "fn_index": call["id"], "session_hash": "cheap0"}
    return client.post("/gradio_api/run/predict", json=body).raise_for_status().json()["data"]


def test_the_page_is_rendered_once(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []
    render = routes.templates.TemplateResponse

    def counting(*given: Any, **how: Any) -> Any:
        rendered.append(how["name"])
        return render(*given, **how)

    monkeypatch.setattr(routes.templates, "TemplateResponse", counting)
    pages = set()
    for query in ("", "?chat=new", "?lang=zh"):
        client = TestClient(app, base_url="http://127.0.0.1:7860")
        answer = client.get("/" + query)
        assert answer.headers["set-cookie"]
        pages.add(answer.text)
    assert len(pages) == len(rendered) == 1


def test_an_event_makes_nothing_anew_that_it_does_not_change(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    client.get("/")
    made: list[str] = []
    make, look = gr.HTML.__init__, BlocksConfig.config_for_block

    def counting(self: gr.HTML, *given: Any, **how: Any) -> None:
        made.append(str(how.get("elem_id")))
        make(self, *given, **how)

    def looking(*given: Any, **how: Any) -> Any:
        made.append("how it looks")
        return look(*given, **how)

    monkeypatch.setattr(gr.HTML, "__init__", counting)
    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(looking))
    assert len(event(client, "picture", "input")) == 7  # no picture came, and nothing changes
    assert not made


def test_newcomers_are_charged_for_what_they_ask(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: dict[bool, float] = {}
    spend = Turns.spend

    def noting(self: Turns, client: Client, seconds: float) -> None:
        spent[client.known] = spent.get(client.known, 0.0) + seconds
        spend(self, client, seconds)

    monkeypatch.setattr(Turns, "spend", noting)
    ask: Callable[[], Any] = lambda: event(client, "chats", "click")  # noqa: E731
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    client.get("/")
    before = spent[False]
    ask()
    assert spent[False] > before > 0
    assert True not in spent
