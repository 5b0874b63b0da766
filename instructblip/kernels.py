"""Small fused kernels of the language model's layers, each with a plain reference.

On an NPU they are torch_npu's own operators, on CUDA those of :mod:`instructblip.kernels_triton`. A
kernel that the device lacks, or that differs from its reference on a small input, is left out.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

from instructblip.devices import fp16_only

log = logging.getLogger(__name__)

# Device types whose layers are fused.
FUSED = ("npu", "cuda")
# On 910A and 310P torch_npu has these as old-style operators only, compiled at run time.
_COMPILED_ON_OLD_CHIPS = ("rotate",)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x [..., width] over its root mean square, in fp32 inside (arXiv:1910.07467)."""
    normed: Tensor = _best("rms_norm", x.device)(x, weight, epsilon)
    return normed


def plain_rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """The reference of :func:`rms_norm`."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(x.dtype)


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """→ the norm of x + y, and x + y."""
    made: tuple[Tensor, Tensor] = _best("add_rms_norm", x.device)(x, y, weight, epsilon)
    return made


def plain_add_rms_norm(
    x: Tensor, y: Tensor, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The reference of :func:`add_rms_norm`."""
    total = x + y
    return plain_rms_norm(total, weight, epsilon), total


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (arXiv:2104.09864) of x [B, heads, n, d]; cos and sin [B, 1, n, d]."""
    turned: Tensor = _best("rotate", x.device)(x, cos, sin)
    return turned


def plain_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The reference of :func:`rotate`: LLaMA's, which turns the two halves of d."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Angles(NamedTuple):
    """Cosines and sines of rotary embeddings, [B, n, d] each.

    ``signed`` is set where no kernel rotates: the sines, negative in the first half, so that no layer
    needs to turn a sign.
    """

    cos: Tensor
    sin: Tensor
    signed: Tensor | None = None

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor) -> Angles:
        """For the layers of one forward."""
        if cos.device.type not in FUSED or usable("rotate", cos.device):
            return cls(cos, sin)
        first, second = sin.chunk(2, -1)
        return cls(cos, sin, torch.cat([-first, second], -1))


def rotate_signed(x: Tensor, cos: Tensor, signed: Tensor) -> Tensor:
    """:func:`plain_rotate` in three kernels, with :attr:`Angles.signed`."""
    first, second = x.chunk(2, -1)
    return torch.addcmul(x * cos, torch.cat([second, first], -1), signed)


def swiglu(x: Tensor) -> Tensor:
    """x [..., 2·n], gate and up side by side → silu(gate)·up [..., n] (arXiv:2002.05202)."""
    out: Tensor = _best("swiglu", x.device)(x)
    return out


def plain_swiglu(x: Tensor) -> Tensor:
    """The reference of :func:`swiglu`."""
    gate, up = x.chunk(2, -1)
    return silu(gate) * up


def untile(packed: Tensor, scales: Tensor, places: Tensor) -> Tensor:
    """4-bit weights in tiles of 8 outputs × 128 inputs → weights [out, in] in the scales' dtype.

    ``packed`` int32 [out / 8, groups, 32, 4], whose 1024 levels in a tile, low bits first, lie at
    ``places`` int32 [1024]; ``scales`` [groups, out, 2] (scale, offset): w = (q - 8)·scale + offset.
    """
    weight: Tensor = _best("untile", packed.device)(packed, scales, places)
    return weight


def plain_untile(packed: Tensor, scales: Tensor, places: Tensor) -> Tensor:
    """The reference of :func:`untile`."""
    shifts = torch.arange(0, 32, 4, device=packed.device)
    levels = (packed.flatten(2)[..., None] >> shifts & 15).flatten(2)  # [out / 8, groups, 1024]
    tiles = torch.empty_like(levels)
    tiles[:, :, places.long()] = levels
    weight = tiles.unflatten(2, (8, -1)).permute(0, 2, 1, 3).flatten(0, 1).float()
    scale, offset = scales.float().transpose(0, 1)[..., None].unbind(2)  # [out, groups, 1]
    return ((weight - 8) * scale + offset).flatten(1).to(scales.dtype)


def int8_matmul(x: Tensor, levels: Tensor, scales: Tensor) -> Tensor:
    """x [rows, in] in half precision @ 8-bit weights, int8 [out, in] with scales [out], → [rows, out]."""
    out: Tensor = _best("int8_matmul", x.device)(x, levels, scales)
    return out


def plain_int8_matmul(x: Tensor, levels: Tensor, scales: Tensor) -> Tensor:
    """The reference of :func:`int8_matmul`."""
    return x @ (levels.to(x.dtype) * scales[:, None]).T


def fetch(kept: Tensor, row: Tensor, length: int) -> Tensor:
    """The first positions of a row (int64 [1]) of [rows, heads, most, d] → [1, heads, length, d]."""
    out: Tensor = _best("fetch", kept.device)(kept, row, length)
    return out


def plain_fetch(kept: Tensor, row: Tensor, length: int) -> Tensor:
    """The reference of :func:`fetch`."""
    return kept[:, :, :length].index_select(0, row)


def store(
    keys: Tensor, values: Tensor, rows: Tensor | None, at: Tensor, key: Tensor, value: Tensor
) -> None:
    """Write n keys and values [n, heads, d] into buffers [rows, heads, length, d].

    Token i goes to row ``rows[i]`` (None: row i) at position ``at[i]``, int64 [n].
    """
    _best("store", at.device)(keys, values, rows, at, key, value)


def plain_store(
    keys: Tensor, values: Tensor, rows: Tensor | None, at: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """The reference of :func:`store`."""
    for kept, new in ((keys, key), (values, value)):
        if rows is None:
            where = at[:, None, None, None].expand(-1, kept.shape[1], 1, kept.shape[3])
            kept[: len(at)].scatter_(2, where, new[:, :, None])
        else:
            kept[rows, :, at] = new
    return keys, values


# --- which kernels this device has --------------------------------------------------------------


def usable(name: str, device: torch.device) -> bool:
    """Whether a fused kernel is to be used on a device; tried once, before it is first used."""
    if device.type not in FUSED or (device.type == "npu" and name not in _OPERATORS):
        return False
    if device.type == "npu" and name in _COMPILED_ON_OLD_CHIPS and fp16_only(device):
        return False
    return _tried(name, device)


def _best(name: str, device: torch.device) -> Callable[..., Any]:
    return _fused(name, device.type) if usable(name, device) else _PLAIN[name]


@functools.cache
def _fused(name: str, kind: str) -> Callable[..., Any]:
    if kind == "npu":
        return _OPERATORS[name]
    triton = importlib.import_module("instructblip.kernels_triton")  # torch has it for CUDA only
    made: Callable[..., Any] = triton.KERNELS[name]
    return made


@functools.cache
def _tried(name: str, device: torch.device) -> bool:
    try:
        out = _fused(name, device.type)(*(_moved(x, device) for x in _example(name)))
        want = _PLAIN[name](*_example(name))
        same = all(
            torch.allclose(a.cpu().float(), b.float(), atol=2e-2, rtol=2e-2)
            for a, b in zip(_several(out), _several(want), strict=True)
        )
    except Exception as error:  # a compiler that is absent raises errors of its own
        why = str(error).strip().partition("\n")[0]
        log.warning("%s has no fused %s and goes on without: %s", device, name, why)
        return False
    if not same:
        log.warning("%s's fused %s differs from plain arithmetic and is left out.", device, name)
    return same


def _example(name: str) -> tuple[Any, ...]:
    """A small input, on the CPU."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).half()

    return {
        "rms_norm": lambda: (draw(2, 64), draw(64), 1e-6),
        "add_rms_norm": lambda: (draw(2, 64), draw(2, 64), draw(64), 1e-6),
        "rotate": lambda: (draw(2, 4, 3, 64), draw(2, 1, 3, 64), draw(2, 1, 3, 64)),
        "swiglu": lambda: (draw(2, 128),),
        "store": lambda: (
            draw(3, 4, 5, 64), draw(3, 4, 5, 64), torch.tensor([2, 0]), torch.tensor([3, 1]),
            draw(2, 4, 64), draw(2, 4, 64),
        ),
        "int8_matmul": lambda: (
            draw(2, 64), torch.arange(96 * 64).mul(37).remainder(255).sub(127).view(96, 64).to(torch.int8),
            draw(96).abs() / 127,
        ),
        "fetch": lambda: (draw(3, 4, 5, 64), torch.tensor([2]), 4),
        "untile": lambda: (
            torch.arange(2 * 3 * 128, dtype=torch.int32).mul(123457).view(2, 3, 32, 4),
            draw(3, 16, 2), torch.randperm(1024, generator=generator).int(),
        ),
    }[name]()  # fmt: skip


def _moved(x: Any, device: torch.device) -> Any:
    return x.to(device) if isinstance(x, Tensor) else x


def _several(made: Any) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "rms_norm": lambda *a: torch.ops.npu.npu_rms_norm(*a)[0],
    "add_rms_norm": lambda *a: torch.ops.npu.npu_add_rms_norm(*a)[::2],
    "rotate": lambda *a: torch.ops.npu.npu_rotary_mul(*a),
    "swiglu": lambda x: torch.ops.npu.npu_swiglu(x.contiguous()),
    # It wants [in, out], and is said to be faster where that is a transpose.
    "int8_matmul": lambda x, levels, scales: torch.ops.npu.npu_weight_quant_batchmatmul(
        x, levels.T, scales
    ),
}
_PLAIN: dict[str, Callable[..., Any]] = {
    "rms_norm": plain_rms_norm, "add_rms_norm": plain_add_rms_norm, "rotate": plain_rotate,
    "swiglu": plain_swiglu, "store": plain_store, "fetch": plain_fetch, "untile": plain_untile,
    "int8_matmul": plain_int8_matmul,
}  # fmt: skip
