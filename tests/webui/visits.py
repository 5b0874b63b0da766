"""A visit to a running server over plain HTTP: what a browser's tab sends, without a browser."""

from __future__ import annotations

import json
import secrets
from typing import Any

import httpx

from webui.sessions import COOKIE


class Visit:
    """A tab of a new visitor, or of the one with this cookie. Leaving the context closes the tab."""

    def __init__(self, url: str, cookie: str = "") -> None:
        self._http = httpx.Client(base_url=url, timeout=90)
        if cookie:
            self._http.cookies.set(COOKIE, cookie)
        self._session = secrets.token_hex(6)
        self._http.get("/").raise_for_status()
        config = self._http.get("/config").json()
        ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        self._calls = {tuple(d["targets"][0]): d for d in config["dependencies"]}
        self._ids = ids
        self._values = {c["id"]: c["props"].get("value") for c in config["components"]}
        self._follow = next(d for d in config["dependencies"] if d["api_name"] == "attach")
        self._pulse = self._http.stream("GET", f"/gradio_api/heartbeat/{self._session}")

    def __enter__(self) -> Visit:
        self._pulse.__enter__()
        return self

    def __exit__(self, *caught: Any) -> None:
        self._pulse.__exit__(*caught)
        self._http.close()

    def event(self, name: str | None, kind: str, first: Any = None) -> str:
        """Trigger an event of a component (None: the page), with a value for its first input.

        → what the server answers with: the parts of the page that change.
        """
        target = (self._ids[name], kind) if name else (0, kind)
        call = self._calls[target]
        data = [self._values.get(i) for i in call["inputs"]]
        if first is not None:
            data[0] = first
        body = {"data": data, "fn_index": call["id"], "session_hash": self._session}
        return self._http.post("/gradio_api/run/predict", json=body).raise_for_status().text

    def follow(self) -> str:
        """Read the running answer's stream to its end; the last message's text."""
        body = {"data": [None], "fn_index": self._follow["id"], "session_hash": self._session}
        self._http.post("/gradio_api/queue/join", json=body).raise_for_status()
        last = ""
        query = {"session_hash": self._session}
        with self._http.stream("GET", "/gradio_api/queue/data", params=query) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return last
                last = line or last
        raise AssertionError("the stream ended early")
