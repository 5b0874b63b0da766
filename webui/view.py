"""What one tab shows, who looks at it, and which components make it up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from webui.bounds import Client

LISTED = 100  # chats in the list until somebody asks for more, and again as many each time
MOST_LISTED = 1000  # the search finds the others


@dataclass
class View:
    """What one tab shows. Lives in ``gr.State``, by reference; a new tab or a reload has a new one."""

    chat_id: str | None = None
    leaf_id: str | None = None
    picture_id: str | None = None  # for the next question
    choices: int = 0  # pictures chosen so far: one that takes long does not replace a later one
    offers: tuple[str, ...] = ()  # questions that suit this picture
    search: str = ""
    listed: int = LISTED  # chats in the list, at most
    epoch: int = 0  # grows when the tab turns to something else; an older attachment then ends
    sending: bool = False
    live_id: str | None = None  # the turn that the tab shows as being answered
    loaded: bool = False
    revived: bool = False  # made anew for a page that was already open
    told_to_wait: bool = False  # the notice says so; it goes when the answer ends

    def move(self, chat_id: str | None, leaf_id: str | None) -> None:
        """Turn to another chat or turn."""
        if chat_id != self.chat_id and self.chat_id is not None:
            self.offers = ()
        self.chat_id, self.leaf_id = chat_id, leaf_id
        self.epoch += 1

    def look_for(self, words: str) -> None:
        """List the chats that contain these words."""
        self.search, self.listed = words, LISTED

    def list_more(self) -> None:
        """List older chats too."""
        self.listed = min(self.listed + LISTED, MOST_LISTED)


@dataclass(frozen=True)
class Who:
    """The asker: whose data, in which language, and whom his bounds count."""

    owner: str
    language: str
    client: Client


@dataclass(frozen=True)
class Parts:
    """The components that handlers change."""

    header: Any
    history: Any
    live: Any
    notice: Any
    strip: Any
    box: Any
    picture: Any
    about: Any
    about_narrow: Any
    chats: Any
    panel: tuple[Any, ...] = field(default=())


def boot_values(boot: str) -> dict[str, str]:
    """What the browser says at the start: chat of the address, kept settings."""
    try:
        given = json.loads(boot or "{}")
    except (ValueError, RecursionError):
        given = {}
    given = given if isinstance(given, dict) else {}
    return {key: str(given.get(key) or "")[:100_000] for key in ("chat", "sampling")}


def address_chat(request: Any) -> str:
    """The chat that the address of an open page names; empty when none."""
    return str(request.query_params.get("chat") or "")
