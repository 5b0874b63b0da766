"""Folder → model, processor and properties.

Layouts: transformers' (a local folder, or one of the hub), LAVIS's (its files side by side), and
the embedded model, a folder of the first kind. Importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructblip.checkpoints.layout import Places as Places
    from instructblip.checkpoints.loading import import_model_code as import_model_code
    from instructblip.checkpoints.loading import load as load
    from instructblip.checkpoints.source import EMBEDDED as EMBEDDED
    from instructblip.checkpoints.source import open_source as open_source

__all__ = ["EMBEDDED", "Places", "import_model_code", "load", "open_source"]

_HOMES = {
    "EMBEDDED": "source",
    "Places": "layout",
    "import_model_code": "loading",
    "load": "loading",
    "open_source": "source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'instructblip.checkpoints' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"instructblip.checkpoints.{_HOMES[name]}"), name)
