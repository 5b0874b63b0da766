"""Who may log in, with which password, and who is logged in.

Passwords are argon2id hashes: in a file (``--auth-file``), which is read again when it changes, and
made at the start of those that came in plain text (``--auth``, ``INSTRUCTBLIP_AUTH``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from instructblip.errors import InstructBlipError
from webui.authfile import COMMAND, made_hash, matches, open_to_others, read_hashes
from webui.login_sessions import LoginSessions, Session
from webui.sessions import Signer, Visitor
from webui.settings import Settings, logins

log = logging.getLogger(__name__)

_PREFIX = "s1."  # of the cookie of a login's session
# Nobody's hash, with the parameters of ours: a name that is not there takes as long as one that is.
_NOBODY = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"


class Accounts:
    """Logins and their sessions, for any thread. Without logins everybody is a visitor.

    Args:
        settings: its ``auth`` is hashed and not kept.
        signer: of the cookies of visitors without a login.

    Raises:
        InstructBlipError: the file of hashes is wrong or cannot be read, a name is in both places,
            or the data folder cannot be written.
    """

    def __init__(self, settings: Settings, signer: Signer) -> None:
        self._signer = signer
        self._shared = frozenset(settings.shared_logins)
        self.asked = settings.asks_login
        self._given: dict[str, str] = {}
        self._file = (
            _HashFile(Path(settings.auth_file), self._changed) if settings.auth_file else None
        )
        self._sessions = (
            LoginSessions(Path(settings.data), settings.login_idle * 3600) if self.asked else None
        )
        plain = logins(settings.auth)
        if self._file is not None and (twice := sorted(plain.keys() & self._file.hashes().keys())):
            raise InstructBlipError(
                f"{twice[0]!r} is in --auth and in {settings.auth_file}. Take it out of one.",
                code="auth_file",
            )
        self._hashing = threading.Thread(target=self._hash, args=(plain,), daemon=True)
        self._hashing.start()

    def ready(self) -> None:
        """Wait until the passwords that came in plain text are hashed: some 0.1 s for each."""
        self._hashing.join()

    def __contains__(self, name: str) -> bool:
        return bool(self._hash_of(name))

    def is_shared(self, name: str) -> bool:
        """Whether each browser with this login has chats of its own."""
        return name in self._shared

    def proof(self, name: str) -> str:
        """What stands for a login's password: another one for another password, "" for no login."""
        hashed = self._hash_of(name)
        return _proof(hashed) if hashed else ""

    def check(self, name: str, password: str) -> bool:
        """Whether this is the password; takes some 0.1 s and 64 MiB, for a name that is none too."""
        hashed = self._hash_of(name)
        return matches(hashed or _NOBODY, password) and bool(hashed)

    # --- sessions ----------------------------------------------------------------------------------

    def visitor(self, cookie: str) -> Visitor | None:
        """Whose cookie this is; None when it is nobody's, or not any more."""
        if self._sessions is None:
            return self._signer.read(cookie)
        session = self._sessions.read(cookie[len(_PREFIX) :]) if _is_session(cookie) else None
        if session is None or session.proof != self.proof(session.login):
            return None
        return Visitor(session.owner, session.login)

    def enter(self, name: str, device: str) -> str:
        """Begin a session of a login in a browser; its cookie's value.

        Raises:
            InstructBlipError: it cannot be written down.
        """
        assert self._sessions is not None
        owner = f"u-{name}" + (f"\0{device}" if self.is_shared(name) else "")
        return _PREFIX + self._sessions.begin(Session(name, owner, self.proof(name)))

    def leave(self, cookie: str) -> None:
        """End the session of a cookie; nothing, when there is none.

        Raises:
            InstructBlipError: that cannot be written down.
        """
        if self._sessions is not None and _is_session(cookie):
            self._sessions.end(cookie[len(_PREFIX) :])

    def close(self) -> None:
        """Close the database of sessions."""
        self.ready()
        if self._sessions is not None:
            self._sessions.close()

    # --- hashes ------------------------------------------------------------------------------------

    def _hash_of(self, name: str) -> str:
        self.ready()
        found = self._given.get(name)
        if found is None and self._file is not None:
            found = self._file.hashes().get(name)
        return found or ""

    def _hash(self, plain: Mapping[str, str]) -> None:
        """The same password keeps the hash of the last start, and so its sessions."""
        if self._sessions is None:
            return
        for name, password in plain.items():
            kept = self._sessions.kept_hash(name)
            self._given[name] = kept if kept and matches(kept, password) else made_hash(password)
        try:
            self._sessions.keep_hashes(self._given)
        except InstructBlipError as error:  # these log in again after the next start
            log.warning("%s", error)
        self._end_others(self._file.hashes() if self._file else {})

    def _changed(self, hashes: Mapping[str, str]) -> None:
        if threading.current_thread() is not self._hashing:
            self.ready()
        self._end_others(hashes)

    def _end_others(self, hashes: Mapping[str, str]) -> None:
        """End the sessions of passwords that are none any more, should they come back too."""
        assert self._sessions is not None
        proofs = {_proof(each) for each in (*hashes.values(), *self._given.values())}
        try:
            self._sessions.keep(proofs)
        except InstructBlipError as error:  # they are refused all the same, while it stays so
            log.warning("%s", error)


class _HashFile:
    """A file of hashes that is read again whenever it has changed."""

    def __init__(self, path: Path, changed: Callable[[Mapping[str, str]], None]) -> None:
        self._path, self._changed = path, changed
        self._lock = threading.RLock()
        self._mark = self._look()
        self._hashes = read_hashes(path)
        if not self._hashes:
            raise InstructBlipError(f"{path} has no login. Add one: {COMMAND}", code="auth_file")
        self._warn_if_open()

    def hashes(self) -> Mapping[str, str]:
        """Name → hash, as the file is now. What is wrong in it, or gone, lets nobody in."""
        with self._lock:
            mark = self._look()
            if mark != self._mark:
                self._mark = mark
                self._read()
            return self._hashes

    def _read(self) -> None:
        faults: list[str] = []
        try:
            self._hashes = read_hashes(self._path, faults.append)
        except InstructBlipError as error:
            self._hashes = {}
            faults.append(str(error))
        for words in faults:
            log.error("%s Until it is mended, nobody logs in by it.", words)
        log.warning("%s was read again: %d logins.", self._path, len(self._hashes))
        self._warn_if_open()
        if self._hashes and not faults:  # half a file, while it is written, ends nothing for good
            self._changed(self._hashes)

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino

    def _warn_if_open(self) -> None:
        if open_to_others(self._path):
            log.warning(
                "%s can be read by other users of this machine: chmod 600 %s",
                self._path, self._path,
            )  # fmt: skip


def _proof(hashed: str) -> str:
    return hashlib.sha256(hashed.encode()).hexdigest()[:32]


def _is_session(cookie: str) -> bool:
    return cookie.startswith(_PREFIX) and len(cookie) <= 100
