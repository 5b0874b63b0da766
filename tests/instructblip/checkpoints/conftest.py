"""LAVIS's layout in a folder of the test's own, and tools to spoil it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import instructblip
from instructblip.errors import CheckpointError

DATA = Path(__file__).resolve().parents[2] / "oracle" / "data"


@pytest.fixture
def lavis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reference checkpoint, and caches that are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    wanted = shutil.ignore_patterns("expected*", "images", "README.md")
    return shutil.copytree(DATA, tmp_path / "lavis", ignore=wanted)


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the tensors of a .pth or .bin file; a model that has the old one mapped keeps it."""
    found = torch.load(path, weights_only=True)
    edit(found.get("model", found))
    replace(path, found)


def replace(path: Path, content: object, **how: Any) -> None:
    """Save to another file, which then takes the name."""
    torch.save(content, path.with_suffix(".new"), **how)
    path.with_suffix(".new").replace(path)


def refused(model: Path | str, **places: Path) -> str:
    """The message with which a load is refused."""
    with pytest.raises(CheckpointError) as caught:
        instructblip.load(model, device="cpu", **places)
    return str(caught.value)
