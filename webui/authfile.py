"""The file of hashes behind ``--auth-file``: lines ``NAME:$argon2id$…``, ``#`` comments, blank lines.

Hashes are argon2id's, with the second set of parameters that RFC 9106 recommends (3 passes over
64 MiB, 4 lanes): some 0.1 s on a small machine. A file made elsewhere may have others, in bounds.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from instructblip.errors import BadParameter, InstructBlipError

COMMAND = "bash launch.sh passwd FILE NAME"
LONGEST_NAME = 100  # characters
LONGEST_PASSWORD = 1024  # bytes
_LARGEST = 2**20  # bytes of a file; some 8,000 accounts
_MEMORY, _PASSES, _LANES = 2**20, 20, 64  # KiB and counts that a line may ask for
_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_LINE = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})",
    re.ASCII,
)


def made_hash(password: str) -> str:
    """The argon2id hash of a password, in its usual text form."""
    return _HASHER.hash(_bytes(password))


def matches(hashed: str, password: str) -> bool:
    """Whether this is the password; takes the time that argon2 takes, either way."""
    try:
        return _HASHER.verify(hashed, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False


def is_name(name: str) -> bool:
    """Whether a login may have this name, in a file and anywhere."""
    fits = 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()
    return fits and ":" not in name


class Line:
    """One line of a file. ``name`` is empty for a comment, a blank line and a ``fault``."""

    def __init__(self, text: str, number: int) -> None:
        self.text, self.number = text, number
        self.name = self.hashed = self.fault = ""
        stripped = text.strip()
        if not stripped or stripped.startswith("#"):
            return
        name, colon, hashed = stripped.partition(":")
        if not colon or not is_name(name):
            self.fault = "it is not NAME:HASH"
        elif not _is_hash(hashed):
            self.fault = f"what follows {name!r} is no whole argon2id hash"
        else:
            self.name, self.hashed = name, hashed


def read_lines(path: Path) -> list[Line]:
    """All lines; what is wrong with one stands in its ``fault``, a name's second line included.

    Raises:
        InstructBlipError: the file cannot be read at all (``auth_file``).
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise _bad(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise _bad(f"{path} is not a text file in UTF-8.") from error
    if len(data) > _LARGEST:
        raise _bad(f"{path} has more than {_LARGEST} bytes.")
    numbered = enumerate(text.removesuffix("\n").split("\n"), 1)
    lines = [Line(line.removesuffix("\r"), number) for number, line in numbered]
    seen: set[str] = set()
    for line in lines:
        if line.name in seen:
            line.fault, line.name = f"{line.name!r} has a line already", ""
        elif line.name:
            seen.add(line.name)
    return lines


def read_hashes(path: Path, complain: Callable[[str], None] | None = None) -> dict[str, str]:
    """Name → hash. ``complain`` is told of each line that is wrong and left out; without it, all
    must be right.

    Raises:
        InstructBlipError: the file cannot be read, or is wrong, line by line (``auth_file``).
    """
    lines = read_lines(path)
    for line in lines:
        if line.fault:
            words = f"{path}, line {line.number}: {line.fault}. Make it with: {COMMAND}"
            if complain is None:
                raise _bad(words)
            complain(words)
    return {line.name: line.hashed for line in lines if line.name}


def write_account(path: Path, name: str, hashed: str | None) -> bool:
    """Set a name's hash, or take its line out (None); the other lines stay as they are.

    Returns:
        Whether the name had a line before.

    Raises:
        BadParameter: the name is none that a login may have.
        InstructBlipError: the file cannot be read, is wrong, or cannot be written.
    """
    if not is_name(name) or name.startswith("#"):
        raise BadParameter(
            f"{name!r} cannot be a name: use up to {LONGEST_NAME} characters, without a colon, a "
            "space at either end, or # at the beginning.",
            code="auth_file",
        )
    path = Path(os.path.realpath(path))  # a link stays a link
    lines: list[Line] = []
    if path.exists():
        read_hashes(path)  # what is wrong is not written over
        lines = read_lines(path)
    kept = [line.text for line in lines]
    at = next((i for i, line in enumerate(lines) if line.name == name), None)
    if at is not None:
        kept[at : at + 1] = [] if hashed is None else [f"{name}:{hashed}"]
    elif hashed is not None:
        kept.append(f"{name}:{hashed}")
    _replace(path, "".join(line + "\n" for line in kept))
    return at is not None


def open_to_others(path: Path) -> bool:
    """Whether the file can be read by more than its owner."""
    try:
        return os.name == "posix" and bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _bytes(password: str) -> bytes:
    # Bytes that are no UTF-8 come as surrogates, from a shell and from a form alike.
    return password.encode("utf-8", "surrogateescape")


def _is_hash(text: str) -> bool:
    found = _LINE.fullmatch(text)
    if found is None:
        return False
    memory, passes, lanes = map(int, found.groups()[:3])
    whole = all(len(part) % 4 != 1 for part in found.groups()[3:])
    sound = 1 <= lanes <= _LANES and 8 * lanes <= memory <= _MEMORY and 1 <= passes <= _PASSES
    return whole and sound


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, and for its owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _bad(f"{path} cannot be written ({error.strerror}).") from error


def _bad(words: str) -> InstructBlipError:
    return InstructBlipError(words, code="auth_file")
