"""Cases that compare each fused operator with its plain reference, on random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from instructblip import kernels
from instructblip.devices import release_memory
from instructblip.fused import attend, attention_mask
from tests.npu import compute

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def differences(dtype: str) -> dict[str, float]:
    """Largest difference of each fused operator on npu from its reference on the CPU."""
    draw = _random(DTYPES[dtype])
    x, y, weight = draw(3, 5, 64), draw(3, 5, 64), draw(64)
    heads, angles = draw(2, 4, 5, 16), (draw(2, 1, 5, 16), draw(2, 1, 5, 16))
    pairs: dict[str, tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = {
        "norm": ("npu_rms_norm", kernels.rms_norm, kernels.plain_rms_norm, (x, weight, 1e-5)),
        "add_norm": ("npu_add_rms_norm", kernels.add_rms_norm, kernels.plain_add_rms_norm,
                     (x, y, weight, 1e-5)),
        "rotate": ("npu_rotary_mul", kernels.rotate, kernels.plain_rotate, (heads, *angles)),
        "swiglu": ("npu_swiglu", kernels.swiglu, kernels.plain_swiglu,
                   (x.transpose(0, 1),)),
    }  # fmt: skip
    made = {}
    for name, (operator, fused, plain, inputs) in pairs.items():
        on_npu = [v.to("npu") if isinstance(v, Tensor) else v for v in inputs]
        compute.used.clear()
        made[name] = _difference(fused(*on_npu), plain(*inputs))
        assert f"npu::{operator}" in compute.used, f"{name} did not use {operator}"
    return made


def attention(dtype: str, masked: bool, groups: int) -> float:
    """Attention over unlike lengths with one bool mask, fused on npu against plain on the CPU."""
    draw = _random(DTYPES[dtype])
    query, key, value = draw(3, 4, 2, 16), draw(3, 4 // groups, 9, 16), draw(3, 4 // groups, 9, 16)
    seen = (torch.arange(9) <= torch.tensor([2, 8, 0])[:, None])[:, None, None] if masked else None
    answers = []
    for device in ("npu", "cpu"):
        mask = None if seen is None else attention_mask(seen.to(device), DTYPES[dtype])
        answers.append(attend(*(t.to(device) for t in (query, key, value)), mask).cpu())
    return _difference(*answers)


def merged_layers() -> dict[str, Any]:
    """A LLaMA with merged weights against the plain one, and whether the names are views."""
    from tests.npu import chats

    model = chats.load("npu")
    layer = model.weights.language_model.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    names = (attention.q_proj, attention.k_proj, attention.v_proj)
    inside = [m.weight.untyped_storage().data_ptr() == attention.qkv.weight.untyped_storage().data_ptr()
              for m in names]  # fmt: skip
    return {
        "classes": [type(m).__name__ for m in (layer, attention, mlp, layer.input_layernorm)],
        "views": all(inside),
        "in_files": sorted(k for k in layer.state_dict() if "qkv" in k or "gate_up" in k),
    }


def released() -> dict[str, int]:
    """Bytes that the allocator holds before and after memory is given back."""
    torch.empty(8 << 20, dtype=torch.uint8, device="npu")
    before = torch.npu.memory_reserved()
    release_memory(torch.device("npu"))
    return {"before": before, "after": torch.npu.memory_reserved()}


def _random(dtype: torch.dtype) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(dtype)


def _difference(a: Any, b: Any) -> float:
    several = zip(*((v if isinstance(v, tuple) else (v,)) for v in (a, b)), strict=True)
    return max(float((x.cpu().float() - y.cpu().float()).abs().max()) for x, y in several)
