"""Linears with 8-bit weights, a scale for each output: an NPU runs them as they are.

The NPU's kernel is in :mod:`instructblip.kernels`, tried there before it is used. A CPU runs few rows
in bf16 in aten's kernel, which is tried here: 11008 outputs of 4096 inputs take it 6.9 ms a row on one
core with AVX2, plain weights 10.3; in fp16 and fp32 it is seven times as slow and left out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instructblip.fused import agrees, swap
from instructblip.kernels import int8_matmul, usable
from instructblip.weight_only import WeightOnlyLinear

TOP = 127  # the largest level; -128 is not used, so that a scale is all there is
FEW_ROWS = 16  # up to so many rows a CPU's kernel beats unpacking
KERNEL_INPUTS = 64  # aten's kernel reads whole vectors: other widths go past the end
# Bytes; levels and inputs at other addresses than multiples end the process in aten's kernel.
ALIGNED = 64
_HALF = (torch.float16, torch.bfloat16)


class Int8Linear(WeightOnlyLinear):
    """A linear of 8-bit weights: w ≈ q·scale.

    ``levels`` int8 [out, in], ``scales`` [out].
    """

    STORED, INTEGERS = "levels", torch.int8

    levels: Tensor

    @staticmethod
    def fits(plain: nn.Linear) -> bool:
        """An even width keeps the tensors behind it in a file at even bytes."""
        return plain.in_features % 2 == 0

    @staticmethod
    def shapes(outputs: int, inputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of levels and scales."""
        return (outputs, inputs), (outputs,)

    @staticmethod
    def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`quantise`."""
        return quantise(weight)

    @classmethod
    def merged(cls, linears: Sequence[Int8Linear]) -> Int8Linear:
        """One for several of the same input, whose levels and scales become views of its own."""
        levels, scales = (torch.cat([getattr(m, k) for m in linears]) for k in ("levels", "scales"))
        sizes = [m.out_features for m in linears]
        parts = zip(linears, levels.split(sizes), scales.split(sizes), strict=True)
        for module, own_levels, own_scales in parts:
            module.levels, module.scales = own_levels, own_scales
        return cls(levels, scales, len(levels))

    @property
    def in_features(self) -> int:
        """The width of the inputs."""
        return self.levels.shape[1]

    def _in_kernel(self, flat: Tensor) -> Tensor | None:
        if flat.device.type == "npu":
            return int8_matmul(flat, self.levels, self.scales)
        fits = flat.dtype is torch.bfloat16 and self.in_features % KERNEL_INPUTS == 0
        fits = fits and _aligned(self.levels)
        if flat.device.type != "cpu" or len(flat) > FEW_ROWS or not fits or not kernel_agrees():
            return None
        inputs = flat.contiguous() if _aligned(flat) else flat.clone()
        out: Tensor = torch.ops.aten._weight_int8pack_mm(inputs, self.levels, self.scales)
        return out

    def align(self) -> None:
        """Copy levels that lie in a file where the kernel cannot read them."""
        if not _aligned(self.levels):
            self.levels = self.levels.clone()

    def _unpacked(self, part: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.levels[part].to(dtype) * self.scales[part, None].to(dtype)).T


def _aligned(tensor: Tensor) -> bool:
    return tensor.data_ptr() % ALIGNED == 0


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] → levels int8 [out, in] and scales fp32 [out].

    An output's largest weight becomes level 127 or -127, or nearly: scales are rounded up to the
    numbers of bf16, which are those of fp16 too from 2^-17 on, so that they are the same in any dtype.
    """
    wide = weight.float()
    exact = (wide.abs().amax(1) / TOP).clamp(min=2.0**-17)
    scales = (exact.view(torch.int32) + 0xFFFF & ~0xFFFF).view(torch.float32)
    return (wide / scales[:, None]).round().to(torch.int8), scales


def keeps_int8(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device runs 8-bit weights as they are, with inputs of a dtype."""
    if device.type == "npu":
        return dtype in _HALF and usable("int8_matmul", device)
    return device.type == "cpu"


@functools.cache
def kernel_agrees() -> bool:
    """Whether aten's kernel for CPUs is here and gives what the weights give."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 2 * KERNEL_INPUTS, generator=generator) for n in (2, 33))
    levels, scales = quantise(weight)
    want, kernel = x.bfloat16().float() @ (levels * scales[:, None]).T, "_weight_int8pack_mm"
    inputs = x.bfloat16(), levels, scales.bfloat16()
    return agrees(lambda: getattr(torch.ops.aten, kernel)(*inputs), want)


def suit_int8(root: nn.Module, device: torch.device) -> int:
    """Where a device does not keep 8-bit linears, make them plain. Returns how many there are."""
    found = [m for m in root.modules() if isinstance(m, Int8Linear)]
    if found and not keeps_int8(device, found[0].scales.dtype):
        swap(root, Int8Linear.plain, Int8Linear)
    for module in found if device.type == "cpu" else ():
        module.align()
    return len(found)
