"""Modules swapped in at load, each with a plain reference that its test compares it with.

CPU: linears whose weights are laid out once for the processor (:class:`PackedLinear`), and linears
that multiply in fp32 where the processor knows no half precision (:class:`WideLinear`). Private
operations of torch are tried on a small matrix first; where they are missing or differ, the plain
module stays. Attention is here for all devices, quantised weights are in
:mod:`instructblip.weight_only`, the language model's layers on devices in :mod:`instructblip.fused_layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from instructblip.devices import fp16_only

# From so many rows on fp32 is faster, by processors with AVX2 alone (see README, "Speed").
WIDE_ROWS = 3
# Queries up to which a CPU attends by columns; more are a prefill's, where it hardly counts.
COLUMNS = 64
SCORES = 2**18  # of the heads that attend at once
WIDE_OUTPUTS = 256  # weights that are widened at once: they stay in the processor's cache


class PackedLinear(nn.Module):
    """A linear in oneDNN's own layout of weights; the same result, about twice as fast at one row."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), 1)
        self.bias = plain.bias
        self.in_features, self.out_features = plain.in_features, plain.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


class WideLinear(nn.Linear):
    """Weights in half precision, multiplied in fp32 a part at a time: for many rows.

    A processor without arithmetic in half precision takes 2.3 s for what takes 0.4 s in fp32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        flat = x.flatten(0, -2)
        if flat.shape[0] < WIDE_ROWS or x.dtype is torch.float32:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        return multiply_wide(flat, self.out_features, self._part, bias).unflatten(0, x.shape[:-1])

    def _part(self, part: slice) -> Tensor:
        return self.weight[part].float().T


def multiply_wide(
    x: Tensor, outputs: int, part: Callable[[slice], Tensor], bias: Tensor | None = None,
    step: int = WIDE_OUTPUTS,
) -> Tensor:  # fmt: skip
    """x [rows, in] @ the weights [in, outputs] in fp32, ``part`` by part → [rows, outputs] as x is."""
    wide = x.float()
    out = torch.empty(x.shape[0], outputs)
    for at in range(0, outputs, step):
        here = slice(at, min(at + step, outputs))
        torch.mm(wide, part(here), out=out[:, here])
    if bias is not None:
        out += bias
    return out.to(x.dtype)


@functools.cache
def half_arithmetic(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies in a half precision, as torch's oneDNN sees it."""
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    try:
        return bool(getattr(torch.ops.mkldnn, name[dtype])())
    except (RuntimeError, AttributeError, KeyError):
        return True


def widen_linears(root: nn.Module) -> int:
    """Make every linear in a precision without arithmetic here a wide one. Returns how many."""
    slow = [
        m for m in root.modules() if type(m) is nn.Linear and not half_arithmetic(m.weight.dtype)
    ]
    for module in slow:
        module.__class__ = WideLinear
    return len(slow)


@functools.cache
def packing(dtype: torch.dtype) -> bool:
    """Whether this torch can lay out weights of a dtype, with equal results."""
    plain = nn.Linear(64, 32, bias=False).to(dtype).requires_grad_(False)
    x = torch.linspace(-1, 1, 128, dtype=dtype).view(2, 64)
    return agrees(lambda: PackedLinear(plain)(x), linear(x, plain.weight), 1e-2, 1e-5)


def agrees(
    operation: Callable[[], Tensor], want: Tensor, atol: float = 0.25, rtol: float = 0.05
) -> bool:
    """Whether a private operation of torch is here and gives what it should, on a small input.

    Another torch or processor may lack it (RuntimeError), or have it under no name (AttributeError).
    """
    try:
        out = operation()
    except (RuntimeError, AttributeError):
        return False
    return bool(torch.allclose(out.cpu().float(), want.float(), atol=atol, rtol=rtol))


def pack_linears(root: nn.Module, dtype: torch.dtype = torch.bfloat16) -> int:
    """Swap every plain linear of ``dtype`` for a packed one, one at a time, freeing the original.

    fp32 gains nothing and stays. Returns how many were swapped.
    """
    if dtype is torch.float32 or not packing(dtype):
        return 0
    return swap(root, lambda plain: PackedLinear(plain) if plain.weight.dtype is dtype else None)


def attention_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask, True where a query sees a key, in the form that :func:`attend` takes.

    The NPU's fused attention masks what is *hidden*; chips without it, and CUDA, add a large negative
    number, in ``dtype`` of the queries. Turned once here, not in each layer.
    """
    if _fused_attention(seen.device):
        return ~seen
    if seen.device.type == "cuda" or _written_out(seen.device):
        low = torch.finfo(dtype).min
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, low)
    return seen


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of [B, heads, n, d] over [B, kv heads, m, d] → [B, heads, n, d].

    ``mask`` [n, m] or [B, 1, n, m] comes from :func:`attention_mask`.
    """
    if _fused_attention(query.device):
        out: Tensor = torch.ops.npu.npu_fusion_attention(
            query, key, value, query.shape[1], "BNSD",
            atten_mask=mask, scale=query.shape[-1] ** -0.5,
        )[0]  # fmt: skip
        return out
    if _written_out(query.device):
        return attend_written_out(query, key, value, mask)
    if query.device.type == "cpu" and query.dtype is not torch.float32:
        return attend_in_half(query, key, value, mask)
    return _attend_as_torch(query, key, value, mask)


def _attend_as_torch(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


def attend_in_half(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`attend` on a CPU in half precision, where torch's own takes up to six times as long.

    One query over 500 keys of Vicuna-7B, in bf16: 2.8 ms in torch's, 0.5 ms by columns.
    """
    queries, dtype = query.shape[2], query.dtype
    if half_arithmetic(dtype) and queries <= COLUMNS:
        # Few heads at once, whose scores stay in the processor's cache.
        heads = max(SCORES // (queries * key.shape[2]), 1)
        parts = zip(
            query.split(heads * (query.shape[1] // key.shape[1]), 1),
            key.split(heads, 1), value.split(heads, 1), strict=True,
        )  # fmt: skip
        return torch.cat([attend_by_columns(*part, mask) for part in parts], 1)
    if dtype is torch.float16 or (queries == 1 and not half_arithmetic(dtype)):
        return _attend_as_torch(query.float(), key.float(), value.float(), mask).to(dtype)
    return _attend_as_torch(query, key, value, mask)


def attend_by_columns(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`attend` with the queries as columns: oneDNN reads the keys fast as they lie.

    ``mask`` is bool, True where a query sees a key.
    """
    grouped = query.unflatten(1, (key.shape[1], -1))  # [B, kv heads, groups, n, d]
    columns = grouped.flatten(2, 3).transpose(-1, -2)
    scores = (key @ columns).transpose(-1, -2)
    if mask is not None:
        apart = scores.unflatten(2, grouped.shape[2:4])
        scores = torch.where(mask.unsqueeze(-3), apart, -torch.inf).flatten(2, 3)
    weights = scores.float().mul_(query.shape[-1] ** -0.5).softmax(-1).to(value.dtype)
    return (weights @ value).view(query.shape)


def attend_written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`attend` in four kernels, for chips where torch_npu's own takes seventeen.

    ``mask`` is added: 0 where a query sees a key, else fp16's lowest number.
    """
    groups, scale = query.shape[1] // key.shape[1], query.shape[-1] ** -0.5
    if groups > 1:
        key, value = (kept.repeat_interleave(groups, 1) for kept in (key, value))
    scores = query @ key.transpose(-1, -2)
    scores = scores * scale if mask is None else torch.add(mask, scores, alpha=scale)
    return scores.softmax(-1).to(query.dtype) @ value


@functools.cache
def _fused_attention(device: torch.device) -> bool:
    """FlashAttentionScore runs on chips from 910B on."""
    return device.type == "npu" and not fp16_only(device)


@functools.cache
def _written_out(device: torch.device) -> bool:
    """Older chips have no fused attention."""
    return device.type == "npu" and fp16_only(device)


def plain_bytes(root: nn.Module) -> int:
    """Bytes of all plain linears' weights."""
    return sum(m.weight.nbytes for m in root.modules() if type(m) is nn.Linear)


def swap(
    root: nn.Module, make: Callable[[Any], nn.Module | None], kind: type[nn.Module] = nn.Linear
) -> int:
    swapped = 0
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            made = make(child) if type(child) is kind else None
            if made is not None:
                setattr(parent, name, made)
                swapped += 1
    return swapped
