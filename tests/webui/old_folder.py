"""A data folder as version 1 left it, copied to where a test may write, and what was in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

VERSION_1 = Path(__file__).parent / "data" / "version1"
TOLD: dict[str, Any] = json.loads((VERSION_1 / "told.json").read_text("utf-8"))


def copied(to: Path) -> Path:
    """The folder, with the modes that such folders had."""
    shutil.copytree(VERSION_1 / "folder", to)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder, byte by byte: name → mode and content."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode, b"" if path.is_dir() else path.read_bytes()
        )
        for path in (folder, *folder.rglob("*"))
    }  # fmt: skip
