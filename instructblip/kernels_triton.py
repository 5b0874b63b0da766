"""The kernels of :mod:`instructblip.kernels` for CUDA, in Triton, which comes with torch there.

Each gives its plain reference's result (rounded where that rounds), and is tried before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _norm(  # type: ignore[no-untyped-def]
    x, y, weight, normed, total, width, epsilon, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    row, at = tl.program_id(0).to(tl.int64) * width, tl.arange(0, BLOCK)
    here = at < width
    values = tl.load(x + row + at, mask=here, other=0.0)
    kind = values.dtype
    wide = values.to(tl.float32)
    if ADD:
        wide += tl.load(y + row + at, mask=here, other=0.0).to(tl.float32)
        wide = wide.to(kind).to(tl.float32)
        tl.store(total + row + at, wide.to(kind), mask=here)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
    scaled = (wide * scale).to(kind).to(tl.float32)
    factor = tl.load(weight + at, mask=here, other=0.0).to(tl.float32)
    tl.store(normed + row + at, (scaled * factor).to(kind), mask=here)


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """See :func:`instructblip.kernels.add_rms_norm`."""
    x, y = x.contiguous(), y.contiguous()
    normed, total, width = torch.empty_like(x), torch.empty_like(x), x.shape[-1]
    _norm[(x.numel() // width,)](
        x, y, weight, normed, total, width, epsilon, ADD=True,
        BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return normed, total


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`instructblip.kernels.rms_norm`."""
    x = x.contiguous()
    normed, width = torch.empty_like(x), x.shape[-1]
    _norm[(x.numel() // width,)](
        x, x, weight, normed, normed, width, epsilon, ADD=False,
        BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return normed


@triton.jit
def _rotate(  # type: ignore[no-untyped-def]
    x, cos, sin, out, heads, count, x_batch, x_head, x_row, c_batch, c_row,
    HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, head = tl.program_id(0), tl.program_id(1)
    batch, row, at = place // count, place % count, tl.arange(0, BLOCK)
    here = at < HALF
    source = x + batch * x_batch + head * x_head + row * x_row + at
    first = tl.load(source, mask=here, other=0.0)
    second = tl.load(source + HALF, mask=here, other=0.0)
    angle = batch * c_batch + row * c_row + at
    kind = first.dtype
    first, second = first.to(tl.float32), second.to(tl.float32)
    target = out + ((batch * heads + head) * count + row) * (2 * HALF) + at
    for half in tl.static_range(2):
        turned = -second if half == 0 else first
        kept = first if half == 0 else second
        c = tl.load(cos + angle + half * HALF, mask=here, other=0.0).to(tl.float32)
        s = tl.load(sin + angle + half * HALF, mask=here, other=0.0).to(tl.float32)
        sum_ = (kept * c).to(kind).to(tl.float32) + (turned * s).to(kind).to(tl.float32)
        tl.store(target + half * HALF, sum_.to(kind), mask=here)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See :func:`instructblip.kernels.rotate`; x's last dimension is contiguous."""
    batch, heads, count, width = x.shape
    cos, sin = cos.contiguous(), sin.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    c_batch = 0 if cos.shape[0] == 1 else cos.stride(0)
    _rotate[(batch * count, heads)](
        x, cos, sin, out, heads, count, x.stride(0), x.stride(1), x.stride(2), c_batch,
        cos.stride(2), HALF=width // 2, BLOCK=triton.next_power_of_2(width // 2), num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
def _swiglu(x, out, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = at < width
    gate = tl.load(x + row * 2 * width + at, mask=here, other=0.0)
    up = tl.load(x + row * 2 * width + width + at, mask=here, other=0.0).to(tl.float32)
    kind = gate.dtype
    wide = gate.to(tl.float32)
    soft = (wide * tl.sigmoid(wide)).to(kind).to(tl.float32)
    tl.store(out + row * width + at, (soft * up).to(kind), mask=here)


def swiglu(x: Tensor) -> Tensor:
    """See :func:`instructblip.kernels.swiglu`."""
    x = x.contiguous()
    width, block = x.shape[-1] // 2, 1024
    out = torch.empty((*x.shape[:-1], width), dtype=x.dtype, device=x.device)
    _swiglu[(out.numel() // width, triton.cdiv(width, block))](x, out, width, BLOCK=block)
    return out


@triton.jit
def _store(  # type: ignore[no-untyped-def]
    keys, values, rows, at, key, value, heads, length, k_token, k_head, v_token, v_head,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = tl.load(rows + token) if ROWS else token
    d = tl.arange(0, BLOCK)
    target = ((row * heads + head) * length + tl.load(at + token)) * WIDTH + d
    k = tl.load(key + token * k_token + head * k_head + d, mask=d < WIDTH)
    v = tl.load(value + token * v_token + head * v_head + d, mask=d < WIDTH)
    tl.store(keys + target, k, mask=d < WIDTH)
    tl.store(values + target, v, mask=d < WIDTH)


def store(
    keys: Tensor, values: Tensor, rows: Tensor | None, at: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`instructblip.kernels.store`."""
    tokens, heads, width = key.shape
    _store[(tokens, heads)](
        keys, values, at if rows is None else rows, at, key, value, heads, keys.shape[2],
        key.stride(0), key.stride(1), value.stride(0), value.stride(1), ROWS=rows is not None,
        WIDTH=width, BLOCK=triton.next_power_of_2(width), num_warps=1,
    )  # fmt: skip
    return keys, values


@triton.jit
def _fetch(  # type: ignore[no-untyped-def]
    kept, row, out, whole, head, size, BLOCK: tl.constexpr
):
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(row) * whole + tl.program_id(0).to(tl.int64) * head + at
    here = at < size
    tl.store(out + tl.program_id(0) * size + at, tl.load(kept + source, mask=here), mask=here)


def fetch(kept: Tensor, row: Tensor, length: int) -> Tensor:
    """See :func:`instructblip.kernels.fetch`."""
    _, heads, most, width = kept.shape
    out = torch.empty(1, heads, length, width, dtype=kept.dtype, device=kept.device)
    size, block = length * width, 4096
    _fetch[(heads, triton.cdiv(size, block))](
        kept, row, out, heads * most * width, most * width, size, BLOCK=block
    )
    return out


@triton.jit
def _untile(  # type: ignore[no-untyped-def]
    packed, scales, places, out, groups, outputs, WORDS: tl.constexpr, ROWS: tl.constexpr
):
    tile, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, WORDS * 8)
    words = tl.load(packed + (tile * groups + group) * WORDS + at // 8)
    level = (words >> (at % 8) * 4 & 15).to(tl.float32)
    place = tl.load(places + at)
    inputs = WORDS * 8 // ROWS
    n, k = tile * ROWS + place // inputs, place % inputs
    pair = scales + (group * outputs + n) * 2
    scale, offset = tl.load(pair).to(tl.float32), tl.load(pair + 1).to(tl.float32)
    weight = (level - 8) * scale + offset
    tl.store(out + (n * groups + group) * inputs + k, weight.to(out.dtype.element_ty))


def untile(packed: Tensor, scales: Tensor, places: Tensor) -> Tensor:
    """See :func:`instructblip.kernels.untile`."""
    tiles, groups = packed.shape[:2]
    outputs, words = scales.shape[1], packed[0, 0].numel()
    out = torch.empty(outputs, groups * words, dtype=scales.dtype, device=packed.device)
    _untile[(tiles, groups)](packed, scales, places, out, groups, outputs, WORDS=words, ROWS=8)
    return out


KERNELS: dict[str, Callable[..., Any]] = {
    "rms_norm": rms_norm, "add_rms_norm": add_rms_norm, "rotate": rotate, "swiglu": swiglu,
    "store": store, "fetch": fetch, "untile": untile,
}  # fmt: skip
