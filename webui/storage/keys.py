"""The key that signs visitors' cookies, kept twice: whoever loses it parts visitors from their chats."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from instructblip.errors import InstructBlipError
from webui.storage.aside import aside_folder
from webui.storage.database import unwritable
from webui.storage.modes import make_private

log = logging.getLogger(__name__)
_BYTES = 32


def load_key(folder: Path, visitors: Callable[[], int] = lambda: 0) -> bytes:
    """The signing key of this data folder, made on first use with mode 0600.

    It stands in ``cookie.key`` and in ``cookie.key.copy``. Where one is lost or damaged it is made
    of the other; where both are lost, chats of visitors without a login cannot be reached any
    more: ``visitors`` counts those, to be said.

    Raises:
        InstructBlipError: it cannot be read or made (``store_unwritable``), or is damaged and there
            is no copy (``key_damaged``).
    """
    path, copy = folder / "cookie.key", folder / "cookie.key.copy"
    try:
        make_private(folder)
        key, kept = _read(path), _read(copy)
        if key is None:
            if path.exists():
                if kept is None:
                    raise _damaged(path)
                _set_aside(path, "damaged")
            key = kept or secrets.token_bytes(_BYTES)
            key = _write(path, key)
            _say(path, kept, visitors)
        elif kept is not None and kept != key:  # somebody put another one there
            _set_aside(copy, "another than the one now in use")
        elif kept is None and copy.exists():
            _set_aside(copy, "damaged")
        if (folder / "chats.sqlite3").exists():  # before that there is nothing to lose
            _write(copy, key)
    except OSError as error:
        raise unwritable(path, error) from error
    return key


def _read(path: Path) -> bytes | None:
    """The key in a file; None where there is none, or none of the right length."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == _BYTES else None


def _write(path: Path, key: bytes) -> bytes:
    """Make the file if it is absent; return the key that is in it then."""
    temporary = path.parent / f".cookie.key.{secrets.token_hex(4)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # never replaces a key another process just made
    except FileExistsError:
        return _read(path) or key
    finally:
        temporary.unlink()
    return key


def _set_aside(path: Path, why: str) -> None:
    kept = aside_folder(path.parent) / path.name
    os.replace(path, kept)
    log.warning("%s was %s; it is kept in %s.", path, why, kept)


def _damaged(path: Path) -> InstructBlipError:
    return InstructBlipError(
        f"{path} is damaged ({path.stat().st_size} bytes instead of {_BYTES}). Put it back from a "
        "backup. Delete it if there is none; visitors without a login then start with an empty "
        "list of chats.",
        code="key_damaged",
        path=str(path),
    )


def _say(path: Path, kept: bytes | None, visitors: Callable[[], int]) -> None:
    if kept is not None:
        log.warning("%s was lost and is made again of its copy.", path)
    elif lost := visitors():
        log.warning(
            "%s was lost, and its copy too. There is a new one, but the chats of %d visitor(s) "
            "without a login of their own cannot be reached until the old %s is put back, from a "
            "backup. Nothing was deleted; visitors with a login find their chats.",
            path, lost, path.name,
        )  # fmt: skip
