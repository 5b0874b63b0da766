"""Strangers over plain HTTP: what a browser's tab sends, and what it would never send."""

from __future__ import annotations

import secrets
from typing import Any

import httpx

from tests.tiny_picture import picture

GRADIO = "/gradio_api"


class Stranger:
    """A visitor with a cookie and one tab. ``prefix``: a path prefix that the server keeps."""

    def __init__(self, url: str, prefix: str = "", **headers: str) -> None:
        self.http = httpx.Client(base_url=url.rstrip("/") + prefix, timeout=60, headers=headers)
        self.session = secrets.token_hex(6)
        self.http.get("/").raise_for_status()
        self.config = self.http.get("/config").json()
        self.ids = {c["props"].get("elem_id"): c["id"] for c in self.config["components"]}
        self.calls = {tuple(d["targets"][0]): d for d in self.config["dependencies"]}
        self._values = {c["id"]: c["props"].get("value") for c in self.config["components"]}

    @property
    def cookie(self) -> str:
        """The cookie as a header says it."""
        return "; ".join(f"{c.name}={c.value}" for c in self.http.cookies.jar)

    def upload(self, data: bytes | None = None, name: str = "p.png") -> httpx.Response:
        """Send a file as the page does."""
        files = {"files": (name, picture() if data is None else data, "image/png")}
        return self.http.post(f"{GRADIO}/upload", files=files)

    def uploaded(self, data: bytes | None = None, name: str = "p.png") -> str:
        """Send a file; its path."""
        return str(self.upload(data, name).raise_for_status().json()[0])

    def file(self, path: str) -> httpx.Response:
        """Ask for an upload by its path."""
        return self.http.get(f"{GRADIO}/file={path}")

    def body(self, name: str | None, kind: str, first: Any = None) -> dict[str, Any]:
        """An event's body, with a value for its first input."""
        call = self.calls[(self.ids[name], kind) if name else (0, kind)]
        data = [self._values.get(i) for i in call["inputs"]]
        if first is not None:
            data[0] = first
        return {"data": data, "fn_index": call["id"], "session_hash": self.session}

    def event(self, name: str | None, kind: str, first: Any = None) -> httpx.Response:
        """Trigger an event of a component (None: the page)."""
        return self.http.post(f"{GRADIO}/run/predict", json=self.body(name, kind, first))

    def ask(self, question: str, data: bytes | None = None) -> httpx.Response:
        """Upload a picture and ask about it."""
        self.event(None, "load").raise_for_status()
        file = {"path": self.uploaded(data), "meta": {"_type": "gradio.FileData"}}
        return self.event("box", "submit", {"text": question, "files": [file]})
