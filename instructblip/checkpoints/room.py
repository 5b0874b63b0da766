"""Room on this machine: free memory and disk, compared with a need before work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from instructblip.errors import CheckpointError

_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that can be taken without swapping; a container's limit (cgroup v2) counts."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        cached = _statistic("inactive_file") + _statistic("active_file")
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return free
    return min(free, max(0, limit - used + cached))


def need_memory(size: int, purpose: str) -> None:
    """Compare ``size`` bytes with what is free.

    Raises:
        CheckpointError: there is less.
    """
    free = free_memory()
    if size > free:
        raise CheckpointError(
            f"{purpose} needs {gigabytes(size)} of memory, {gigabytes(free)} are free. Close other "
            "programs or take a machine with more memory."
        )


def need_disk(folder: Path, size: int, purpose: str, *, reclaimed: int = 0) -> None:
    """Compare ``size`` bytes with what is free on the disk of ``folder`` (or its first parent).

    Args:
        folder: need not exist yet.
        size: bytes to be written.
        purpose: the sentence's subject.
        reclaimed: bytes that will be freed before the writing.

    Raises:
        CheckpointError: there is less.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free + reclaimed
    if size > free:
        raise CheckpointError(
            f"{purpose} needs {gigabytes(size)} of disk, {gigabytes(free)} are free in {there}. "
            "Free space, or name a folder on another disk."
        )


def folder_size(folder: Path) -> int:
    """Bytes of all files under a folder; 0 when it is absent."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def gigabytes(size: int) -> str:
    """``13.5 GB``; ``0.3 MB`` below a gigabyte's tenth. Powers of ten, as disks are sold."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _statistic(name: str) -> int:
    for line in (_CGROUP / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
