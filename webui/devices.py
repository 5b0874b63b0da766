"""Browsers that have logged in before, by a signed cookie of 400 days for each login's name.

It lets nobody in. With it a browser's tries at the password are counted apart from strangers', and
one with a shared login finds the chats of its own again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from webui.sessions import COOKIE_AGE, Signer

AGE = COOKIE_AGE
_VALUE = re.compile(r"d1\.([0-9a-f]{32})\.([0-9a-f]{64})\.([0-9a-f]{64})", re.ASCII)
_NUMBER = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Device:
    """``number``: 32 hexadecimal digits. ``trusted``: has known the password that the login has now."""

    number: str
    trusted: bool = False


class Devices:
    """Reads and makes these cookies."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    @staticmethod
    def cookie_name(login: str) -> str:
        """The cookie's name for a login; a browser may have several."""
        digest = hashlib.sha256(login.encode("utf-8", "surrogateescape")).hexdigest()
        return f"instructblip_seen_{digest[:12]}"

    def value(self, login: str, number: str, proof: str) -> str:
        """The cookie's value. ``proof`` stands for the login's password."""
        signs = self._signs(login, number, proof)
        return f"d1.{number}.{signs[0]}.{signs[1]}"

    def read(self, login: str, cookies: Mapping[str, str], proof: str) -> Device | None:
        """The browser that sends these cookies; None when it has never logged in as this."""
        match = _VALUE.fullmatch(cookies.get(self.cookie_name(login), ""))
        if match is None:
            return None
        number, known, now = match.groups()
        signs = self._signs(login, number, proof)
        if not hmac.compare_digest(known, signs[0]):
            return None
        return Device(number, hmac.compare_digest(now, signs[1]))

    def of_old(self, login: str, cookie: str, password: str) -> Device | None:
        """The browser behind a shared login's cookie of version 0.1."""
        account = self._signer.old_account(cookie, password) or ""
        name, _, number = account.partition("\0")
        return Device(number) if name == login and _NUMBER.fullmatch(number) else None

    @staticmethod
    def new() -> Device:
        """A browser that logs in for the first time."""
        return Device(secrets.token_hex(16))

    def _signs(self, login: str, number: str, proof: str) -> tuple[str, str]:
        # With the password's proof: after a change of password a browser is a newcomer again.
        sign = self._signer.sign
        return sign("device", login, number), sign("trusted", login, number, proof)
