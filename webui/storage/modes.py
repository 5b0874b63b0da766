"""Modes of the data folder: what visitors wrote and the key of their cookies are the server's alone."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER, FILE = 0o700, 0o600
# What this program keeps in a data folder; other people's files there keep their modes.
FILES = ("chats.sqlite3*", "cookie.key*", ".cookie.key*")
FOLDERS = ("pictures", "servers", "damaged")


def make_private(folder: Path) -> Path:
    """Make a folder and its parents where absent, itself for the server's user alone.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    return folder


def tighten(folder: Path) -> None:
    """Close an existing data folder to other users; what cannot be closed is said, once."""
    if os.name != "posix":  # modes say nothing there
        return
    open_still = [path for path in _ours(folder) if not _closed(path)]
    if open_still:
        log.warning(
            "%s and %d other(s) can be read by other users of this machine, and their mode cannot "
            "be changed. Give the server a folder of its own with --data FOLDER.",
            open_still[0],
            len(open_still) - 1,
        )


def _ours(folder: Path) -> Iterator[Path]:
    yield folder
    for pattern in FILES:
        yield from folder.glob(pattern)
    for name in FOLDERS:
        for below, _, files in os.walk(folder / name):
            yield Path(below)
            yield from (Path(below, file) for file in files)


def _closed(path: Path) -> bool:
    """Take everything from group and others; whether that is so now."""
    try:
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            return True  # what it points to is not ours to change
        if not state.st_mode & 0o077:
            return True
        if _shared(path, state):
            return False
        path.chmod(FOLDER if stat.S_ISDIR(state.st_mode) else FILE)
    except FileNotFoundError:  # gone meanwhile
        return True
    except OSError:
        return False
    return True


def _shared(path: Path, state: os.stat_result) -> bool:
    """A folder that others need: one for everybody, as /tmp, somebody's home, or the root."""
    whole = path.resolve()
    home = Path(os.path.expanduser("~")).resolve()
    return bool(state.st_mode & stat.S_ISVTX) or whole in (Path(whole.anchor), home)
