"""Who is here: the signed owner cookie, and how much one owner may have running."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from instructblip.errors import BadRequest, Busy
from webui.bounds import Bound, Client, Hold
from webui.storage.keys import load_key as load_key

COOKIE = "instructblip_owner"
COOKIE_AGE = 400 * 24 * 3600  # the longest that browsers keep
_VALUE = re.compile(r"([av])1\.([0-9a-f]{1,1000})\.([0-9]{1,12})\.([0-9a-f]{64})\Z")


@dataclass(frozen=True)
class Visitor:
    """Who sent a request; ``owner`` is the key of everything stored."""

    owner: str
    login: str | None = None  # the login's name, when logins are on


class Signer:
    """Makes and reads owner cookies. The key lives in the data folder, readable by us only."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new_visitor(self) -> Visitor:
        """A visitor without a login, seen for the first time."""
        return Visitor("a-" + secrets.token_hex(16))

    def cookie(self, visitor: Visitor) -> str:
        """The cookie's value, of a visitor without a login."""
        name, issued = visitor.owner[2:], str(int(time.time()))
        return f"a1.{name}.{issued}.{self.sign('a', name, issued, '')}"

    def read(self, value: str) -> Visitor | None:
        """Whose cookie this is; None when it is forged, too old, or a login's."""
        match = _VALUE.match(value)
        if match is None:
            return None
        kind, name, issued, signature = match.groups()
        if kind != "a" or not hmac.compare_digest(signature, self.sign("a", name, issued, "")):
            return None
        return None if time.time() - int(issued) > COOKIE_AGE else Visitor("a-" + name)

    def old_account(self, value: str, password: str) -> str | None:
        """The account (NAME, or NAME and a browser's number) in a login's cookie of version 0.1.

        It lets nobody in; a browser with a shared login finds its chats again by it.
        """
        match = _VALUE.match(value)
        if match is None or match[1] != "v":
            return None
        secret = hashlib.sha256(password.encode("utf-8", "surrogateescape")).hexdigest()
        if not hmac.compare_digest(match[4], self.sign("v", match[2], match[3], secret)):
            return None
        return _unhex(match[2])

    def sign(self, kind: str, *parts: str) -> str:
        """The signature of texts without NUL, for one kind of cookie."""
        message = "\0".join((kind, *parts)).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def owner_of(request: Any) -> str:
    """The owner behind a request: Starlette's, or Gradio's wrapper of it.

    The server's guard has read and checked the cookie; this only hands on what it found.

    Raises:
        BadRequest: the request did not come through the server (``no_owner``).
    """
    inner = getattr(request, "request", None) or request
    visitor = getattr(inner, "scope", {}).get("instructblip.visitor")
    if not isinstance(visitor, Visitor):
        raise BadRequest(
            "This request has no owner: it did not come through the server. Reload the page.",
            code="no_owner",
        )
    return visitor.owner


def login_of(owner: str) -> str | None:
    """The name of the login behind an owner; None of a visitor without one."""
    return owner[2:].partition("\0")[0] if owner.startswith("u-") else None


class Admission:
    """At most one running answer in a chat, ``per_owner`` for an owner, and bounds beyond him.

    Args:
        per_owner: answers that one owner may have running or waiting; an address four times that.
        total: answers that all may have; a part of them is for owners who have answers here.
    """

    def __init__(self, per_owner: int = 4, total: int = 80) -> None:
        self.per_owner = per_owner
        self._bound = Bound("answers", owner=per_owner, address=4 * per_owner, total=total)
        self._lock = threading.Lock()
        self._running: dict[str, tuple[str, str, Hold]] = {}  # turn id -> owner, chat id, hold

    def check(self, client: Client, chat_id: str) -> None:
        """Raise :class:`Busy` when an answer of this client in this chat may not start now."""
        with self._lock:
            self._check(client, chat_id)
            self._bound.check(client)

    def enter(self, client: Client, chat_id: str, turn_id: str) -> None:
        """Check, and count the answer as running until :meth:`leave`."""
        with self._lock:
            self._check(client, chat_id)
            self._running[turn_id] = (client.owner, chat_id, self._bound.enter(client))

    def leave(self, turn_id: str) -> None:
        """The answer has ended."""
        with self._lock:
            left = self._running.pop(turn_id, None)
        if left is not None:
            left[2].leave()

    def _check(self, client: Client, chat_id: str) -> None:
        mine = [chat for who, chat, _ in self._running.values() if who == client.owner]
        if chat_id in mine:
            raise Busy(
                "This chat is still answering. Wait for the end, or press Stop first.",
                code="busy_chat",
            )
        if len(mine) >= self.per_owner:
            raise Busy(
                f"{len(mine)} answers of yours are running or waiting; at most {self.per_owner} "
                "may. Wait for one to end, or stop one.",
                code="busy_owner",
                running=len(mine),
                limit=self.per_owner,
            )


def _unhex(text: str) -> str | None:
    try:
        return bytes.fromhex(text).decode()
    except ValueError:
        return None
