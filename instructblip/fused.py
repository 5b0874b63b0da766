"""Modules swapped in at load, each with a plain reference that its test compares it with.

CPU: linears whose weights are laid out once for the processor (:class:`PackedLinear`), and linears
with 4-bit weights (:class:`Int4Linear`). Private operations of torch are tried on a small matrix
first; where they are missing or differ, the plain module stays. Attention of the NPU is here, the
rest of the NPU's in :mod:`instructblip.fused_layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from instructblip.devices import fp16_only

GROUP = 128  # weights that share a scale and an offset in 4 bits
BLOCK = 64  # outputs that the 4-bit layout packs together
FEW_ROWS = 8  # up to here the 4-bit kernel beats unpacking the weights
_UNPACK_OUTPUTS = 2048  # unpacked at once: bounds the memory of a prefill


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


class Int4Linear(nn.Module):
    """A linear of 4-bit weights in groups of 128: w ≈ (q - 8)·scale + offset.

    ``packed`` uint8 [out, in / 2] in the layout of aten's CPU kernel, ``scales`` [in / 128, out, 2]
    (scale, offset), ``out`` rounded up to whole blocks. Few rows run in the kernel; many rows
    unpack the weights, a part at a time, and multiply in the input's dtype.
    """

    packed: Tensor
    scales: Tensor

    def __init__(
        self, packed: Tensor, scales: Tensor, out_features: int, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.out_features, self.in_features = out_features, packed.shape[1] * 2

    @classmethod
    def of(cls, plain: nn.Linear) -> Int4Linear:
        """Quantise a linear that :func:`fits_int4`."""
        packed, scales = quantise(plain.weight.detach())
        return cls(packed, scales.to(plain.weight.dtype), plain.out_features, plain.bias)

    @classmethod
    def expecting(cls, plain: nn.Linear) -> Int4Linear:
        """The empty 4-bit linear in place of an empty plain one (on the meta device)."""
        shapes = int4_shapes(plain.out_features, plain.in_features)
        packed = torch.empty(shapes[0], dtype=torch.uint8, device="meta")
        scales = torch.empty(shapes[1], device="meta")
        return cls(packed, scales, plain.out_features, plain.bias)

    def plain(self) -> nn.Linear:
        """A plain linear of the same weights, for devices without the kernel."""
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        weight = unpack(self.packed, self.scales, self.scales.dtype).T[: self.out_features]
        made.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        made.register_parameter("bias", self.bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        flat = x.flatten(0, -2)
        if flat.shape[0] <= FEW_ROWS and flat.device.type == "cpu" and int4_kernel():
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.packed, GROUP, self.scales)
        else:
            parts = range(0, len(self.packed), _UNPACK_OUTPUTS)
            out = torch.cat([flat @ self._unpacked(at, flat.dtype) for at in parts], -1)
        out = out[:, : self.out_features]
        out = out if self.bias is None else out + self.bias
        return out.unflatten(0, x.shape[:-1])

    def _unpacked(self, start: int, dtype: torch.dtype) -> Tensor:
        part = slice(start, start + _UNPACK_OUTPUTS)
        return unpack(self.packed[part], self.scales[:, part], dtype)


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] → packed uint8 and scales fp32 in the shapes of :func:`int4_shapes`.

    A group's smallest and largest weight become levels 0 and 15.
    """
    weight = nn.functional.pad(weight, (0, 0, 0, -len(weight) % BLOCK))
    groups = weight.float().unflatten(1, (-1, GROUP))
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp(min=1e-8)
    levels = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15)
    scales = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1).contiguous()
    return pack(levels.flatten(1).to(torch.uint8)), scales


def int4_shapes(outputs: int, inputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of packed weights and scales: [out, in / 2] and [in / GROUP, out, 2]."""
    rows = outputs + -outputs % BLOCK
    return (rows, inputs // 2), (inputs // GROUP, rows, 2)


def pack(levels: Tensor) -> Tensor:
    """Levels 0…15, uint8 [out, in] → [out, in / 2] in the kernel's layout for AVX-512.

    In a block of 64 outputs each input has 32 bytes: outputs 0…31 in their low halves, 32…63 in
    their high ones.
    """
    blocks = levels.unflatten(0, (-1, BLOCK)).transpose(1, 2)  # [blocks, in, 64]
    halves = blocks[..., : BLOCK // 2] | blocks[..., BLOCK // 2 :] << 4
    return halves.reshape(levels.shape[0], levels.shape[1] // 2).contiguous()


def unpack(packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights' transpose [in, out] in ``dtype``."""
    size = packed.shape[1] * 2
    blocks = packed.view(-1, size, BLOCK // 2)
    levels = torch.cat([blocks & 15, blocks >> 4], -1).to(dtype)  # [blocks, in, 64]
    scale, offset = scales.to(dtype).unbind(-1)  # [groups, out]
    scale, offset = (
        s.view(-1, len(blocks), 1, BLOCK).transpose(0, 1) for s in (scale, offset - 8 * scale)
    )
    grouped = levels.unflatten(1, (-1, GROUP))  # [blocks, groups, GROUP, 64]
    return torch.addcmul(offset, grouped, scale).flatten(1, 2).transpose(0, 1).flatten(1)


def fits_int4(plain: nn.Linear) -> bool:
    """Whether its inputs divide into groups."""
    return plain.in_features % GROUP == 0


@functools.cache
def int4_kernel() -> bool:
    """Whether this torch and processor have the 4-bit kernel, and it reads our layout."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(BLOCK, GROUP, generator=generator).bfloat16()
    x = torch.randn(2, GROUP, generator=generator).bfloat16()
    packed, scales = quantise(weight)
    try:
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales.bfloat16())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    want = x.float() @ unpack(packed, scales, torch.float32)
    return bool(torch.allclose(out.float(), want, atol=0.25, rtol=0.05))


@functools.cache
def packing(dtype: torch.dtype) -> bool:
    """Whether this torch can lay out weights of a dtype, with equal results."""
    plain = nn.Linear(64, 32, bias=False).to(dtype)
    x = torch.linspace(-1, 1, 128, dtype=dtype).view(2, 64)
    try:
        with torch.inference_mode():
            return bool(torch.allclose(PackedLinear(plain)(x), linear(x, plain.weight), atol=1e-2))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def pack_linears(root: nn.Module, dtype: torch.dtype = torch.bfloat16) -> int:
    """Swap every plain linear of ``dtype`` for a packed one, one at a time, freeing the original.

    fp32 gains nothing and stays. Returns how many were swapped.
    """
    if dtype is torch.float32 or not packing(dtype):
        return 0
    return _swap(root, lambda plain: PackedLinear(plain) if plain.weight.dtype is dtype else None)


def attention_mask(seen: Tensor) -> Tensor:
    """A bool mask, True where a query sees a key, in the form that :func:`attend` takes.

    The NPU's fused attention masks what is *hidden*; chips without it add a large negative number.
    Turned once here, not in each layer.
    """
    if _fused_attention(seen.device):
        return ~seen
    if _written_out(seen.device):
        low = torch.finfo(torch.float16).min
        return torch.zeros(seen.shape, dtype=torch.float16, device=seen.device).masked_fill_(
            ~seen, low
        )
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
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


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


def quantise_linears(root: nn.Module) -> int:
    """Swap every linear that :func:`fits_int4` for a 4-bit one. Returns how many were swapped."""
    return _swap(root, lambda plain: Int4Linear.of(plain) if fits_int4(plain) else None)


def expect_int4(root: nn.Module) -> int:
    """Make an empty model (on the meta device) one that :func:`quantise_linears` would make."""
    return _swap(root, lambda plain: Int4Linear.expecting(plain) if fits_int4(plain) else None)


def plain_linears(root: nn.Module) -> int:
    """Swap 4-bit linears for plain ones. Returns how many were swapped."""
    return _swap(root, lambda quantised: quantised.plain(), Int4Linear)


def _swap(
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
