"""Linears with 4-bit weights: how they are made, stored, and run on each kind of device.

Stored in the layout of aten's kernel for AVX-512, so that there a start is an mmap; other processors
and CUDA lay the weights out anew at the load. Each kernel is tried on a small matrix first; where it
is missing or differs, the weights are unpacked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instructblip.fused import agrees, swap
from instructblip.kernels import untile, usable
from instructblip.weight_only import WeightOnlyLinear

GROUP = 128  # weights that share a scale and an offset
BLOCK = 64  # outputs that the stored layout packs together
NARROW_BLOCK = 32  # the same of aten's kernel for AVX2
FEW_ROWS = 64  # up to so many rows a CPU's kernel beats unpacking
TILE_STEPS = 8  # of 16 inputs in a tile of CUDA's layout: 128, a group
FEW_ROWS_TILES = 24  # the same of the kernel on CUDA


class Int4Linear(WeightOnlyLinear):
    """A linear of 4-bit weights in groups of 128: w ≈ (q - 8)·scale + offset.

    ``packed`` uint8 [out, in / 2] in the layout of :func:`pack`, ``scales`` [in / 128, out, 2]
    (scale, offset), ``out`` rounded up to whole blocks. Few rows run in the kernel; many rows
    unpack the weights, a part at a time.
    """

    STORED, INTEGERS, BLOCK = "packed", torch.uint8, BLOCK

    packed: Tensor

    def __init__(
        self, packed: Tensor, scales: Tensor, out_features: int, bias: Tensor | None = None
    ) -> None:
        super().__init__(packed, scales, out_features, bias)
        self.block = BLOCK

    @staticmethod
    def fits(plain: nn.Linear) -> bool:
        """Whether its inputs divide into groups."""
        return plain.in_features % GROUP == 0

    @staticmethod
    def shapes(outputs: int, inputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of packed weights and scales: [out, in / 2] and [in / GROUP, out, 2]."""
        rows = outputs + -outputs % BLOCK
        return (rows, inputs // 2), (inputs // GROUP, rows, 2)

    @staticmethod
    def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`quantise`."""
        return quantise(weight)

    @property
    def in_features(self) -> int:
        """The width of the inputs."""
        return self.packed.shape[1] * 2

    def narrow(self) -> None:
        """Lay the weights out for the kernel of AVX2, in memory of their own."""
        self.packed, self.block = narrowed(self.packed), NARROW_BLOCK

    def _in_kernel(self, flat: Tensor) -> Tensor | None:
        # In fp16 and fp32 the kernel takes 50 times as long.
        fits = flat.dtype is torch.bfloat16 and self.block == kernel_block()
        if flat.device.type != "cpu" or len(flat) > FEW_ROWS or not fits:
            return None
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            flat, self.packed, GROUP, self.scales
        )
        return out

    def _unpacked(self, part: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        return unpack(self.packed[part], self.scales[:, part], dtype, self.block)


class TileLinear(nn.Module):
    """The same weights in the layout of aten's CUDA kernel, which takes and gives bf16.

    ``packed`` int32 [out / 8, in / 128, 32, 4], ``scales`` bf16 [in / 128, out, 2]. Few rows run in
    the kernel; many rows unpack the weights, where this device can.
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
        self.out_features, self.in_features = out_features, scales.shape[0] * GROUP

    @classmethod
    def of(cls, stored: Int4Linear) -> TileLinear:
        """Lay the weights of an :class:`Int4Linear` out anew."""
        packed = tiled(levels_of(stored.packed, stored.block))
        scales = stored.scales.bfloat16().contiguous()
        return cls(packed, scales, stored.out_features, stored.bias)

    @classmethod
    def merged(cls, linears: Sequence[TileLinear]) -> TileLinear | None:
        """One for several of the same input, whose weights become views of its own.

        None where padding would lie between them.
        """
        if any(m.out_features != m.scales.shape[1] for m in linears):
            return None
        packed = torch.cat([m.packed for m in linears])
        scales = torch.cat([m.scales for m in linears], 1)
        parts = torch.split(packed, [len(m.packed) for m in linears])
        for module, part in zip(linears, parts, strict=True):
            module.packed = part
        return cls(packed, scales, scales.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        flat = x.flatten(0, -2).bfloat16()
        if len(flat) <= FEW_ROWS_TILES or not usable("untile", flat.device):
            out = torch.ops.aten._weight_int4pack_mm(flat, self.packed, GROUP, self.scales)
        else:
            out = flat @ untile(self.packed, self.scales, tile_places(flat.device)).T
        out = out[:, : self.out_features].to(x.dtype)
        out = out if self.bias is None else out + self.bias
        return out.unflatten(0, x.shape[:-1])


# --- numbers ------------------------------------------------------------------------------------


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] → packed uint8 and scales fp32 in the shapes of :meth:`Int4Linear.shapes`.

    A group's smallest and largest weight become levels 0 and 15.
    """
    weight = nn.functional.pad(weight, (0, 0, 0, -len(weight) % BLOCK))
    groups = weight.float().unflatten(1, (-1, GROUP))
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp(min=1e-8)
    levels = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15)
    scales = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1).contiguous()
    return pack(levels.flatten(1).to(torch.uint8)), scales


def pack(levels: Tensor, block: int = BLOCK) -> Tensor:
    """Levels 0…15, uint8 [out, in] → [out, in / 2], packed by ``block`` outputs.

    In a block of 64 outputs (AVX-512) each input has 32 bytes: outputs 0…31 in their low halves,
    32…63 in their high ones; in one of 32 (AVX2) 16 bytes, likewise.
    """
    blocks = levels.unflatten(0, (-1, block)).transpose(1, 2)  # [blocks, in, block]
    halves = blocks[..., : block // 2] | blocks[..., block // 2 :] << 4
    return halves.reshape(levels.shape[0], levels.shape[1] // 2).contiguous()


def narrowed(packed: Tensor) -> Tensor:
    """Blocks of 64 outputs → of 32, without unpacking."""
    out = torch.empty_like(packed)
    for one, made in zip(packed.split(BLOCK), out.split(BLOCK), strict=True):  # in the cache
        left, right = one.view(-1, BLOCK // 2).chunk(2, -1)  # [in, 16] each
        low, high = made.view(2, -1, NARROW_BLOCK // 2)
        low.copy_(left & 15 | right << 4)
        high.copy_(left >> 4 | right & 240)
    return out


def levels_of(packed: Tensor, block: int = BLOCK) -> Tensor:
    """The reverse of :func:`pack`: uint8 [out, in]."""
    blocks = packed.view(-1, packed.shape[1] * 2, block // 2)
    return torch.cat([blocks & 15, blocks >> 4], -1).transpose(1, 2).flatten(0, 1)


def unpack(packed: Tensor, scales: Tensor, dtype: torch.dtype, block: int = BLOCK) -> Tensor:
    """The weights' transpose [in, out] in ``dtype``."""
    size = packed.shape[1] * 2
    blocks = packed.view(-1, size, block // 2)
    levels = torch.cat([blocks & 15, blocks >> 4], -1).to(dtype)  # [blocks, in, block]
    scale, offset = scales.to(dtype).unbind(-1)  # [groups, out]
    scale, offset = (  # contiguous: six times as fast to multiply with
        s.reshape(-1, len(blocks), 1, block).transpose(0, 1).contiguous()
        for s in (scale, offset - 8 * scale)
    )
    grouped = levels.unflatten(1, (-1, GROUP))  # [blocks, groups, GROUP, block]
    return torch.addcmul(offset, grouped, scale).flatten(1, 2).transpose(0, 1).flatten(1)


def tiled(levels: Tensor) -> Tensor:
    """Levels, uint8 [out, in] on CUDA → the layout of :class:`TileLinear`."""
    pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).contiguous()
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, TILE_STEPS)
    return packed


@functools.cache
def tile_places(device: torch.device) -> Tensor:
    """Where a tile's 1024 levels lie in its 8 outputs × 128 inputs, int32, as this device packs them.

    Read off by packing the places themselves, four bits at a time.
    """
    places = torch.arange(8 * GROUP, device=device).view(8, GROUP)
    bits = [tiled((places >> shift & 15).to(torch.uint8)).flatten() for shift in (0, 4, 8)]
    shifts = torch.arange(0, 32, 4, device=device)
    nibbles = [(word[:, None] >> shifts & 15).flatten() for word in bits]
    return (nibbles[0] | nibbles[1] << 4 | nibbles[2] << 8).to(torch.int32)


# --- which kernels are here ---------------------------------------------------------------------


@functools.cache
def kernel_block() -> int:
    """Outputs in a block of this processor's 4-bit kernel: 64, 32, or 0 where there is none."""
    return next((block for block in (BLOCK, NARROW_BLOCK) if _reads(block)), 0)


@functools.cache
def keeps_int4(device: torch.device) -> bool:
    """Whether a device runs 4-bit weights as they are: a CPU, and CUDA with aten's kernel."""
    if device.type != "cuda":
        return device.type == "cpu"
    x, stored, want = _example()
    return agrees(lambda: TileLinear.of(stored.to(device))(x.to(device)), want)


def _example() -> tuple[Tensor, Int4Linear, Tensor]:
    """Inputs, a small layer, and what it makes of them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(BLOCK, GROUP, generator=generator).bfloat16()
    x = torch.randn(2, GROUP, generator=generator).bfloat16()
    packed, scales = quantise(weight)
    want = x.float() @ unpack(packed, scales, torch.float32)
    return x, Int4Linear(packed, scales.bfloat16(), BLOCK), want


def _reads(block: int) -> bool:
    x, stored, want = _example()
    packed, kernel = pack(levels_of(stored.packed), block), "_weight_int4pack_mm_for_cpu"
    return agrees(lambda: getattr(torch.ops.aten, kernel)(x, packed, GROUP, stored.scales), want)


# --- models -------------------------------------------------------------------------------------


def suit_int4(root: nn.Module, device: torch.device) -> int:
    """Give the 4-bit linears the form that a device runs. Returns how many there are.

    A CPU with another layout gets its own, CUDA :class:`TileLinear`; elsewhere they become plain.
    """
    if device.type == "cpu":
        found = [m for m in root.modules() if isinstance(m, Int4Linear)]
        for module in found if kernel_block() == NARROW_BLOCK else ():
            module.narrow()
        return len(found)
    make: Callable[[Any], nn.Module] = TileLinear.of if keeps_int4(device) else Int4Linear.plain
    return swap(root, make, Int4Linear)
