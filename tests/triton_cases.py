"""Each Triton kernel against its plain reference, in Triton's interpreter or on CUDA.

``python -m tests.triton_cases [cpu|cuda]`` prints a line of JSON for each case: its name, the largest
difference as a share of the largest number, and the tolerance. The interpreter knows no bf16.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from instructblip import kernels

Case = tuple[str, str, Callable[[], tuple[Any, ...]]]


def cases(dtype: torch.dtype, device: str) -> Iterator[Case]:
    """Name, kernel, and what makes its inputs: twice the same."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    def ints(*numbers: int) -> Tensor:
        return torch.tensor(numbers, device=device)

    generator = torch.Generator().manual_seed(0)
    for width in (4096, 200):
        yield f"norm {width}", "rms_norm", lambda w=width: (draw(3, 1, w), draw(w), 1e-6)
        yield (
            f"sum {width}",
            "add_rms_norm",
            lambda w=width: (draw(3, w), draw(3, w), draw(w), 1e-6),
        )
    # Queries and keys are a part of what one matmul made, neither contiguous nor in order.
    for shared in (2, 1):
        yield f"rotate {shared}", "rotate", lambda n=shared: (
            draw(2, 5, 12 * 64).unflatten(-1, (-1, 64)).transpose(1, 2)[:, :8],
            draw(n, 1, 5, 64), draw(n, 1, 5, 64),
        )  # fmt: skip
    yield "swiglu", "swiglu", lambda: (draw(2, 3, 2200),)
    for rows in (None, ints(2, 2, 0)):
        yield f"store {rows}", "store", lambda rows=rows: (
            draw(4, 8, 9, 64), draw(4, 8, 9, 64), rows, ints(1, 4, 8),
            draw(1, 8, 3, 64)[0].transpose(0, 1), draw(3, 8, 64),
        )  # fmt: skip
    yield "fetch", "fetch", lambda: (draw(4, 8, 9, 64), ints(2), 7)
    yield "untile", "untile", lambda: (
        torch.randint(-(2**31), 2**31, (4, 3, 32, 4), generator=generator).int().to(device),
        draw(3, 32, 2), torch.randperm(1024, generator=generator).int().to(device),
    )  # fmt: skip


def main(device: str = "cpu") -> None:
    """Print all cases."""
    from instructblip.kernels_triton import KERNELS

    assert {kernel for _, kernel, _ in cases(torch.float16, device)} == set(KERNELS)
    dtypes = [torch.float16, torch.float32] + [torch.bfloat16] * (device != "cpu")
    for dtype in dtypes:
        tolerance = 1e-5 if dtype is torch.float32 else 2 * torch.finfo(dtype).eps
        for name, kernel, make in cases(dtype, device):
            inputs = make()
            copies = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
            made, want = KERNELS[kernel](*inputs), kernels._PLAIN[kernel](*copies)
            off = max(map(_off, kernels._several(made), kernels._several(want)))
            print(json.dumps([f"{name} {dtype}", off, tolerance]), flush=True)


def _off(made: Tensor, want: Tensor) -> float:
    assert (made.shape, made.dtype) == (want.shape, want.dtype)
    made, want = made.float(), want.float()
    return float((made - want).abs().max() / want.abs().max())


if __name__ == "__main__":
    main(*sys.argv[1:])
