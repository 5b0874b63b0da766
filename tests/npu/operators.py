"""torch_npu's own operators for compute mode, in plain torch; only those that we call.

Written from the operators' documentation, apart from the references in ``instructblip``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.npu.compute import implement


def install() -> None:
    """Register them."""
    implement("npu::npu_format_cast", format_cast)
    implement("npu::npu_rms_norm", rms_norm)
    implement("npu::npu_add_rms_norm", add_rms_norm)
    implement("npu::npu_rotary_mul", rotary_mul)
    implement("npu::npu_swiglu", swiglu)
    implement("npu::npu_fusion_attention", fusion_attention)
    implement("npu::npu_weight_quant_batchmatmul", weight_quant_batchmatmul)


def format_cast(x: Tensor, *_: object) -> Tensor:
    """Formats are not simulated."""
    return x


def rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """→ x / rms(x) · gamma, and 1 / rms(x) in fp32."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * scale * gamma.float()).to(x.dtype), scale


def add_rms_norm(
    x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """→ the norm of x1 + x2, 1 / rms, and the sum."""
    total = x1 + x2
    return (*rms_norm(total, gamma, epsilon), total)


def rotary_mul(
    x: Tensor, cos: Tensor, sin: Tensor, rotary_mode: str = "half", rotate: Tensor | None = None
) -> Tensor:
    """x [B, N, S, D] with cos and sin that broadcast to it: the halves of D are turned."""
    assert rotary_mode == "half"
    assert rotate is None
    assert x.ndim == cos.ndim == sin.ndim == 4
    first, second = x.float().chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    return (x.float() * cos.float() + turned * sin.float()).to(x.dtype)


def swiglu(x: Tensor, dim: int = -1) -> Tensor:
    """silu of the first half times the second."""
    assert x.is_contiguous(), "npu_swiglu wants contiguous input"
    gate, up = x.float().chunk(2, dim)
    return (gate * torch.sigmoid(gate) * up).to(x.dtype)


def fusion_attention(
    query: Tensor, key: Tensor, value: Tensor, head_num: int, input_layout: str,
    pse: Tensor | None = None, padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None, scale: float = 1.0, *_: object, **__: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:  # fmt: skip
    """[B, N, S, D] each; a mask is bool, and True is masked *out*."""
    assert input_layout == "BNSD"
    assert head_num == query.shape[1]
    assert query.dtype in (torch.float16, torch.bfloat16, torch.float32)
    groups = query.shape[1] // key.shape[1]
    wide = key.float().repeat_interleave(groups, 1)
    scores = query.float() @ wide.transpose(-1, -2) * scale
    if atten_mask is not None:
        assert atten_mask.dtype is torch.bool
        assert atten_mask.ndim in (2, 4), "[S, S] or [B or 1, 1, S, S]"
        scores = scores.masked_fill(atten_mask, -math.inf)
    out = scores.softmax(-1) @ value.float().repeat_interleave(groups, 1)
    empty = torch.empty(0)
    return out.to(query.dtype), empty, empty.clone(), empty.clone(), 0, 0, 0


def weight_quant_batchmatmul(
    x: Tensor, weight: Tensor, antiquant_scale: Tensor, antiquant_offset: Tensor | None = None,
    *more: object, **_: object,
) -> Tensor:  # fmt: skip
    """x [M, K] @ ((weight [K, N] + offset) · scale [N]), for int8 weights with a scale a channel."""
    assert x.ndim == weight.ndim == 2
    assert x.dtype in (torch.float16, torch.bfloat16)
    assert weight.dtype is torch.int8
    assert antiquant_scale.dtype is x.dtype
    assert antiquant_scale.shape in ((weight.shape[1],), (1, weight.shape[1]))
    assert antiquant_offset is None
    assert not any(more)
    assert 0 < max(weight.shape) <= 65535
    return (x.float() @ (weight.float() * antiquant_scale.float())).to(x.dtype)
