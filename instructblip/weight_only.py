"""What linears of integer weights have in common, whatever their bits: weight-only quantisation.

:mod:`instructblip.int4` and :mod:`instructblip.int8` are such kinds, :mod:`instructblip.quantised` lists them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from instructblip.fused import half_arithmetic, multiply_wide, swap

# Weights that each thread unpacks at once: they stay in its cache, and their memory is used again.
# With 16 times as many, 160 rows of 11008 inputs take 176 ms in place of 64.
AT_ONCE = 2**19


class WeightOnlyLinear(nn.Module, ABC):
    """A linear whose weights are integers with scales; few rows run in a kernel, where there is one.

    Many rows unpack the weights, a part at a time, which bounds the memory of a prefill. ``scales``
    are in the dtype of the inputs. A kind says the names, shapes and numbers below.
    """

    STORED: ClassVar[str]  # the name of the integers
    INTEGERS: ClassVar[torch.dtype]
    BLOCK: ClassVar[int] = 64  # outputs that are unpacked at once, or a multiple of them

    scales: Tensor

    def __init__(
        self, integers: Tensor, scales: Tensor, out_features: int, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer(self.STORED, integers)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.out_features = out_features

    @staticmethod
    @abstractmethod
    def fits(plain: nn.Linear) -> bool:
        """Whether a linear can become one of this kind."""

    @staticmethod
    @abstractmethod
    def shapes(outputs: int, inputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the integers, whose first is the outputs, and of the scales."""

    @staticmethod
    @abstractmethod
    def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
        """[out, in] → integers, and scales in fp32."""

    @classmethod
    def of(cls, plain: nn.Linear) -> Self:
        """Quantise a linear that :meth:`fits`."""
        integers, scales = cls.quantise(plain.weight.detach())
        return cls(integers, scales.to(plain.weight.dtype), plain.out_features, plain.bias)

    @classmethod
    def expecting(cls, plain: nn.Linear) -> Self:
        """The empty linear of this kind in place of an empty plain one (on the meta device)."""
        integers, scales = cls.shapes(plain.out_features, plain.in_features)
        empty = torch.empty(integers, dtype=cls.INTEGERS, device="meta")
        return cls(empty, torch.empty(scales, device="meta"), plain.out_features, plain.bias)

    @property
    def integers(self) -> Tensor:
        """The stored integers."""
        found: Tensor = getattr(self, self.STORED)
        return found

    @property
    @abstractmethod
    def in_features(self) -> int:
        """The width of the inputs."""

    def plain(self) -> nn.Linear:
        """A plain linear of the same weights, for devices without the kernel."""
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        weight = self._unpacked(slice(None), self.scales.dtype).T[: self.out_features]
        made.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        made.register_parameter("bias", self.bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        flat = x.flatten(0, -2)
        out = self._in_kernel(flat)
        out = (self._in_parts(flat) if out is None else out)[:, : self.out_features]
        out = out if self.bias is None else out + self.bias
        return out.unflatten(0, x.shape[:-1])

    @abstractmethod
    def _in_kernel(self, flat: Tensor) -> Tensor | None:
        """[rows, in] → [rows, outputs], or None where no kernel is for these."""

    def _in_parts(self, flat: Tensor) -> Tensor:
        outputs = len(self.integers)
        at_once = AT_ONCE * torch.get_num_threads()
        step = max(at_once // self.in_features // self.BLOCK, 1) * self.BLOCK
        if works_wide(flat):
            return multiply_wide(flat, outputs, self._unpacked, step=step)
        cuts = (slice(at, at + step) for at in range(0, outputs, step))
        return torch.cat([flat @ self._unpacked(cut, flat.dtype) for cut in cuts], -1)

    @abstractmethod
    def _unpacked(self, part: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        """A part of the outputs' weights, as [in, outputs]."""


def works_wide(flat: Tensor) -> bool:
    """Whether a processor multiplies these inputs in fp32, lacking their precision."""
    return flat.device.type == "cpu" and not half_arithmetic(flat.dtype)


def quantise_linears(root: nn.Module, kind: type[WeightOnlyLinear]) -> int:
    """Swap every linear that fits for one of a kind. Returns how many were swapped."""
    return swap(root, lambda plain: kind.of(plain) if kind.fits(plain) else None)


def expect_linears(root: nn.Module, kind: type[WeightOnlyLinear]) -> int:
    """Make an empty model (on the meta device) one that :func:`quantise_linears` would make."""
    return swap(root, lambda plain: kind.expecting(plain) if kind.fits(plain) else None)
