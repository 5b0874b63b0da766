"""8-bit linears against their own weights, and these against the plain ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from instructblip import int8, weight_only
from instructblip.fused import pack_linears, packing
from instructblip.fused_layers import _merge
from instructblip.int4 import Int4Linear
from instructblip.int8 import (
    Int8Linear,
    keeps_int8,
    kernel_agrees,
    quantise,
    suit_int8,
)
from instructblip.kernels import plain_int8_matmul
from instructblip.weight_only import expect_linears, quantise_linears
from tests.instructblip.test_fused import plain

CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 300), st.integers(1, 20), st.integers(0, 1000),
    st.sampled_from([torch.float32, *HALF]),
)  # fmt: skip
def test_eight_bits_are_within_half_a_level_whatever_the_shape(
    inputs: int, outputs: int, rows: int, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(outputs, 2 * inputs) * torch.rand(outputs, 1)
    levels, scales = quantise(weight)
    assert levels.abs().max() <= 127
    assert torch.equal(scales.to(dtype).float(), scales)  # the same in every dtype
    back = levels * scales[:, None]
    assert ((back - weight).abs() <= 0.5 * scales[:, None] + 1e-6).all()
    # At least 126 of the 127 levels are used: rounding the scale up costs under one.
    assert ((levels.abs().amax(1) >= 126) | (scales == 2**-17)).all()

    x = torch.randn(rows, 2 * inputs).to(dtype)
    made = Int8Linear(levels, scales.to(dtype), outputs)(x)
    want = x.float() @ back.T
    assert made.dtype is dtype
    close = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}[dtype]
    assert ((made.float() - want).abs() <= close * (1 + want.abs().amax())).all()


def test_outputs_without_weights_stay_zero() -> None:
    levels, scales = quantise(torch.zeros(3, 8))
    assert not levels.any()
    assert (scales > 0).all()


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("outputs", [64, 300])
@pytest.mark.parametrize("dtype", HALF)
def test_an_eight_bit_linear_gives_its_own_weights_result(
    dtype: torch.dtype, outputs: int, rows: int, kernel: bool, half: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not kernel:
        monkeypatch.setattr(int8, "kernel_agrees", lambda: False)
    monkeypatch.setattr(weight_only, "half_arithmetic", lambda dtype: half)
    quantised = Int8Linear.of(plain(256, outputs, dtype, bias=True))
    x = torch.randn(2, rows, 256).to(dtype)
    weights = quantised.levels * quantised.scales.float()[:, None]
    want = x.float() @ weights.T + quantised.bias.float()
    for way in (quantised, quantised.plain()):
        torch.testing.assert_close(way(x).float(), want, atol=0.05, rtol=0.05)
        assert way(x).shape == (2, rows, outputs)
    flat = plain_int8_matmul(x.flatten(0, 1), quantised.levels, quantised.scales)
    torch.testing.assert_close(
        flat.float(), want.flatten(0, 1) - quantised.bias, atol=0.1, rtol=0.1
    )


def test_one_row_runs_in_the_kernel_in_bf16_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every processor that the tests run on has the kernel; in other dtypes it is a slow loop."""
    assert kernel_agrees()
    kernel, ran = torch.ops.aten._weight_int8pack_mm, []

    def counted(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        ran.append((x.dtype, tuple(x.shape)))
        return kernel(x, *weights)

    monkeypatch.setattr(torch.ops.aten, "_weight_int8pack_mm", counted)
    for dtype in (*HALF, torch.float32):
        for rows in (1, 100):
            Int8Linear.of(plain(256, 64, dtype))(torch.ones(rows, 256, dtype=dtype))
    # The kernel reads past the end of rows that are no whole vectors.
    Int8Linear.of(plain(70, 64, torch.bfloat16))(torch.ones(1, 70, dtype=torch.bfloat16))
    assert ran == [(torch.bfloat16, (1, 256))]


@pytest.mark.parametrize("kernel", ["wrong", "absent"])
def test_a_kernel_that_is_absent_or_differs_is_found_out(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torch.ops.aten._weight_int8pack_mm

    def other(x: torch.Tensor, levels: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        if kernel == "absent":
            raise NotImplementedError
        return right(x, levels, scales.flip(0))

    monkeypatch.setattr(torch.ops.aten, "_weight_int8pack_mm", other)
    kernel_agrees.cache_clear()
    assert not kernel_agrees()
    kernel_agrees.cache_clear()


def test_linears_are_swapped_where_they_fit_and_answers_stay_close() -> None:
    model = nn.Sequential(
        plain(256, 193, torch.bfloat16), nn.GELU(), plain(193, 100, torch.bfloat16)
    )
    empty = nn.Sequential(nn.Linear(256, 193, device="meta"), nn.Linear(193, 9, device="meta"))
    x = torch.randn(4, 256).bfloat16()
    want = model(x)
    assert quantise_linears(model, Int8Linear) == 1  # an odd width stays plain
    assert 0 < (model(x) - want).norm() < 0.02 * want.norm()
    assert expect_linears(empty, Int8Linear) == 1
    for name, made in model[0].named_buffers():
        assert made.shape == getattr(empty[0], name).shape
    assert pack_linears(model) == packing(torch.bfloat16)
    assert suit_int8(model, CPU) == 1
    assert type(model[0]) is Int8Linear
    assert suit_int8(model, torch.device("meta")) == 1  # a device without a kernel
    assert type(model[0]) is nn.Linear
    assert (model(x) - want).norm() < 0.02 * want.norm()


def test_merged_weights_are_one_linear_and_take_no_second_copy() -> None:
    parts = [Int8Linear.of(plain(256, n, torch.bfloat16)) for n in (64, 100)]
    x = torch.randn(3, 256).bfloat16()
    want = torch.cat([part(x) for part in parts], -1)
    merged = _merge(*parts)
    assert torch.equal(merged(x), want)
    assert torch.equal(torch.cat([part(x) for part in parts], -1), want)
    for name in ("levels", "scales"):
        storage = getattr(merged, name).untyped_storage().data_ptr()
        assert {getattr(p, name).untyped_storage().data_ptr() for p in parts} == {storage}


def test_what_has_a_bias_or_is_of_another_kind_is_not_merged() -> None:
    made, biased = (Int8Linear.of(plain(256, 64, torch.bfloat16, bias=b)) for b in (False, True))
    assert _merge(made, biased) is None
    assert _merge(made, Int4Linear.of(plain(256, 64, torch.bfloat16))) is None
    assert _merge(made, plain(256, 64, torch.bfloat16)) is None


def test_eight_bits_stay_where_a_kernel_runs_them() -> None:
    assert keeps_int8(CPU, torch.float32)
    assert not keeps_int8(torch.device("meta"), torch.bfloat16)


def shifted(tensor: torch.Tensor, by: int) -> torch.Tensor:
    """The same numbers, ``by`` bytes behind the beginning of a cache line."""
    raw = torch.empty(tensor.nbytes + 128, dtype=torch.uint8)
    at = -raw.data_ptr() % 64 + by
    out = raw[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return out.copy_(tensor)


@pytest.mark.parametrize("by", [2, 4, 16, 32])
@pytest.mark.parametrize("rows", [1, 5])
def test_weights_and_inputs_may_lie_anywhere(rows: int, by: int) -> None:
    stored = Int8Linear.of(plain(128, 322, torch.bfloat16))
    x = torch.randn(rows, 128).bfloat16()
    want = x.float() @ (stored.levels * stored.scales[:, None].float()).T

    def close(out: torch.Tensor) -> None:
        torch.testing.assert_close(out.float(), want, atol=0.05, rtol=0.05)

    close(stored(x))
    stored.levels = shifted(stored.levels, by)  # as in a file that another program wrote
    close(stored(x))
    suit_int8(nn.Sequential(stored), CPU)
    assert stored.levels.data_ptr() % 64 == 0
    close(stored(shifted(x, by)))
    close(stored(x.repeat(1, 2)[:, :128]))
