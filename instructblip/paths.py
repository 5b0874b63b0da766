"""Paths as people write them: quoted, escaped, dropped into a terminal, from Windows, as addresses."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from instructblip.errors import BadRequest, PictureError
from instructblip.texts import decode, undecoded

_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("`", "`"))
_ADDRESS = re.compile(r"(?!file:)(?:[a-z][a-z0-9+.-]+://|data:[a-z]+/)", re.IGNORECASE)
_DROPPED = ("/", "'", '"', "~", "file:", "& ")  # beginnings of a whole path
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def as_file(words: str, folder: str | Path = "") -> Path:
    """The file that these words name, as seen from a folder.

    The words themselves come first, then what they are without a terminal's or a file manager's
    marks (quotes, ``\\ ``, a space at the end, ``file://``), with ``\\`` for ``/``, and in another
    encoding. The first that is there is meant; where none is, the words as they are.

    Raises:
        PictureError: ``picture_address``: they are an address on the network.
    """
    refuse_address(words)
    for spelling in dict.fromkeys(_spellings(words)):
        path = Path(folder) / os.path.expanduser(spelling)
        if spelling and os.path.exists(path):
            return path
    return Path(folder) / os.path.expanduser(words)


def dropped_file(line: str) -> Path | None:
    """The file whose whole path a line is, as terminals write it when a file is dropped into them;
    None where the line is something else."""
    if not line.startswith(_DROPPED) and not _WINDOWS.match(line):
        return None
    path = as_file(line)
    return path if path.is_absolute() and path.is_file() else None


def refuse_address(words: str) -> None:
    """Raise PictureError (``picture_address``) for what would have to be fetched."""
    shown = words.strip("\"' \t")
    if _ADDRESS.match(shown):
        raise PictureError(
            f"{shown[:200]} is an address, not a file: nothing is fetched from the network here. "
            "Save the picture to a file and name that.",
            code="picture_address",
        )


def of_windows(words: str) -> bool:
    """Whether the words are an absolute path of Windows, and this is another system."""
    return os.name != "nt" and _WINDOWS.match(words.strip("\"' \t")) is not None


def _spellings(words: str) -> Iterator[str]:
    yield words
    bare = words.strip()
    yield bare
    if bare.startswith("& "):  # PowerShell calls what is dropped into it
        bare = bare[2:].strip()
    for opened, closed in _QUOTES:
        if len(bare) > 1 and bare[0] == opened and bare[-1] == closed:
            yield bare[1:-1]
            yield from _of_address(bare[1:-1].strip())
    yield from _of_address(bare)
    try:
        parts = shlex.split(bare)
    except ValueError:  # a quote that is not closed
        parts = []
    if len(parts) == 1:
        yield parts[0]
        yield from _of_address(parts[0])
    unquoted = bare.strip("\"'")
    if "\\" in unquoted and os.name != "nt":
        yield unquoted.replace("\\", "/")
    data = undecoded(words)
    if data is not None:
        with suppress(BadRequest):
            yield decode(data).text


def _of_address(words: str) -> Iterator[str]:
    """The path in a ``file:`` address, with and without its escapes."""
    if not words.lower().startswith("file:"):
        return
    try:
        parts = urlsplit(words)
    except ValueError:
        return
    if parts.netloc.lower() not in ("", "localhost"):
        return
    plain = words[len(parts.scheme) + 1 :]
    plain = plain[2 + len(parts.netloc) :] if plain.startswith("//") else plain
    for path in (unquote(plain), plain):
        # file:///C:/x is C:/x on Windows.
        yield path.lstrip("/") if os.name == "nt" and re.match(r"/+[A-Za-z]:", path) else path
