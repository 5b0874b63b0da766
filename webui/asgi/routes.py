"""Every route that is open, and for whom. What is not in this table does not exist.

Gradio brings some eighty routes, among them ones that fetch addresses, run programs on files, or
show other people's state. A visit needs the few below; a test holds this table against all routes
of the installed Gradio.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

GRADIO = "/gradio_api"
UPLOAD = f"{GRADIO}/upload"
FILE = f"{GRADIO}/file="
STREAMS = "/streams"  # WebSockets that carry the two event streams
EVENT_BODY = 2**20  # bytes: a question of 100,000 characters, escaped
FORM_BODY = 2**14  # bytes: a name and a password
SESSION = re.compile(r"[0-9a-z]{4,40}\Z")  # what a page makes up for its tab


class Who(StrEnum):
    """Who may ask."""

    ANYONE = "anyone"  # nothing of a visitor is in the answer
    NEWCOMER = "newcomer"  # a visitor; who has no cookie yet gets one
    VISITOR = "visitor"  # whoever has a cookie that this server made


class Session(StrEnum):
    """Where a request names the tab that it is about."""

    NONE = "none"
    PATH = "path"
    QUERY = "query"
    BODY = "body"


@dataclass(frozen=True)
class Route:
    """One open route. ``path`` ends with ``*`` for everything below it, or a part in ``{}``."""

    methods: tuple[str, ...]
    path: str
    who: Who = Who.VISITOR
    session: Session = Session.NONE
    body: int = 0  # bytes that may be sent; -1: what settings.max_upload allows
    query: tuple[str, ...] | None = None  # the parameters that are handed on; None: all
    pattern: re.Pattern[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        made = re.escape(self.path).replace(r"\*", "(.+)")
        object.__setattr__(
            self, "pattern", re.compile(re.sub(r"\\{\w+\\}", "([^/]+)", made) + r"\Z")
        )

    @property
    def is_light(self) -> bool:
        """Whether it needs little of the server's loop at a time: a small file, or what goes in
        pieces. What goes in is none of these: an upload's form is read by the loop."""
        stream = self.session in (Session.PATH, Session.QUERY) or "WEBSOCKET" in self.methods
        return self.who is Who.ANYONE or stream

    def rest(self, path: str) -> str:
        """What stands for the ``*`` or the ``{}`` in a path of this route."""
        match = self.pattern.match(path)
        return match.group(1) if match and match.groups() else ""


_READ = ("GET", "HEAD")
_PAGE = ("chat", "lang", "__theme")

OPEN: tuple[Route, ...] = (
    Route(_READ, "/", Who.NEWCOMER, query=_PAGE),
    Route(_READ, "/config", Who.NEWCOMER, query=_PAGE),
    Route(_READ, "/assets/*", Who.ANYONE),
    Route(_READ, "/static/*", Who.ANYONE),
    Route(_READ, "/theme.css", Who.ANYONE),
    Route(_READ, "/favicon.ico", Who.ANYONE),
    Route(_READ, "/healthz", Who.ANYONE),
    Route(("GET",), f"{GRADIO}/app_id", Who.ANYONE),  # a page that lost the server waits for it
    Route(("GET", "HEAD", "POST"), "/login", Who.ANYONE, body=FORM_BODY),
    Route(("GET", "HEAD", "POST"), "/logout", Who.ANYONE, body=FORM_BODY),
    Route(_READ, "/pictures/{id}"),
    Route(("POST",), UPLOAD, body=-1),
    Route(("GET",), f"{GRADIO}/upload_progress"),
    Route(_READ, FILE + "*"),
    Route(("POST",), f"{GRADIO}/queue/join", session=Session.BODY, body=EVENT_BODY),
    Route(("POST",), f"{GRADIO}/run/predict", session=Session.BODY, body=EVENT_BODY),
    Route(("GET",), f"{GRADIO}/queue/data", session=Session.QUERY),
    Route(("GET",), f"{GRADIO}/heartbeat/{{session}}", session=Session.PATH),
    Route(("WEBSOCKET",), STREAMS),
)  # fmt: skip


def find(scope: Any) -> Route | None:
    """The open route that a request asks for; its path is canonical by now."""
    method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
    return next((r for r in OPEN if method in r.methods and r.pattern.match(scope["path"])), None)
