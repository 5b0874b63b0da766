"""Cases that look at the chip; without a model, so that a process is there soon."""

from __future__ import annotations

from typing import Any

import torch
import torch_npu

from instructblip.devices import choose_device, choose_dtype, free_memory, kv_memory
from instructblip.errors import InstructBlipError


def dtypes() -> dict[str, Any]:
    """What auto and bf16 give on this chip, how torch_npu is set up, and its memory in bytes."""
    device = choose_device("npu")
    said: dict[str, Any] = {"auto": str(choose_dtype("auto", device, 7_000_000_000))}
    try:
        said["bf16"] = str(choose_dtype("bf16", device, 1))
    except InstructBlipError as error:
        said["bf16"] = str(error)
    formats = torch_npu._C._npu_getOption("ALLOW_INTERNAL_FORMAT")
    said["settings"] = [torch.npu.is_jit_compile_false(), formats.decode()]
    return said | {"free": free_memory(device), "kv": kv_memory(device)}
