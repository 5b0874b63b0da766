"""InstructBLIP for multi-turn chat: the core, usable without any web page.

The package is lazy: importing it, or any of its torch-free modules, does not import torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# torch would import torch_npu wherever it is installed, and fail with it where CANN is not;
# instructblip.devices imports it where an NPU is found or asked for.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")

if TYPE_CHECKING:
    from instructblip.checkpoints import load as load
    from instructblip.engine.local import LocalEngine as LocalEngine
    from instructblip.model import ImageFeatures as ImageFeatures
    from instructblip.model import InstructBlip as InstructBlip

__version__ = "0.1.0"
__all__ = ["ImageFeatures", "InstructBlip", "LocalEngine", "__version__", "load"]

_HOMES = {
    "load": "instructblip.checkpoints",
    "InstructBlip": "instructblip.model",
    "ImageFeatures": "instructblip.model",
    "LocalEngine": "instructblip.engine.local",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'instructblip' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
