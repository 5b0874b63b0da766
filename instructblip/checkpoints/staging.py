"""A folder that appears whole or not at all: written under another name, renamed at the end."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from instructblip.errors import BadRequest, CheckpointError


def refuse_existing(target: Path) -> None:
    """Nothing is ever written over.

    Raises:
        BadRequest: something has the target's name, be it a dangling link.
    """
    if os.path.lexists(target):
        raise BadRequest(f"{target} exists already. Move it away, or name another folder.")


def partial_name(target: Path) -> Path:
    """Where the folder lies until it is whole: beside the target, so that a rename suffices."""
    return target.with_name(f".{target.name}.partial")


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that becomes ``target`` when the block ends well.

    Any exception, Ctrl-C included, leaves nothing. What a killed run left is taken over: its lock
    died with it. Where the file system has no locks, two runs at once are not kept apart.

    Raises:
        BadRequest: the target exists.
        CheckpointError: another run is at it, or a write failed (a full disk, for one).
    """
    refuse_existing(target)
    made = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
    lock = -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _taken_over(target)
        temporary = partial_name(target)
        try:
            yield temporary
            _settle(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Writing {target} failed: {getattr(error, 'strerror', None) or error}. Nothing is "
            "left of it; free disk space or name a folder on another disk, and run this again."
        ) from error
    finally:
        if lock >= 0:
            os.close(lock)
        for folder in made:
            with suppress(OSError):  # not empty: it holds the target
                folder.rmdir()


def _taken_over(target: Path) -> int:
    """Lock the partial folder, empty it, and return the lock's file descriptor."""
    temporary = partial_name(target)
    temporary.mkdir(exist_ok=True)
    lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock, temporary)
        refuse_existing(target)
        for entry in temporary.iterdir():
            shutil.rmtree(entry) if _is_folder(entry) else entry.unlink()
    except BaseException:
        os.close(lock)
        raise
    return lock


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()


def _lock(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(folder) from error
    except OSError:  # NFS cannot lock a folder
        return
    # Another run may have renamed the folder between our open and our lock.
    if not folder.exists() or not os.path.samestat(os.fstat(lock), folder.stat()):
        raise _busy(folder)


def _busy(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"Another run is writing {folder}. Wait for its end, or name another folder."
    )


def _settle(temporary: Path, target: Path) -> None:
    """Bring the bytes to the disk before the name: a power cut must not leave a hollow folder."""
    for file in temporary.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    refuse_existing(target)
    temporary.rename(target)
