"""Each swapped-in module against its plain reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from instructblip import fused
from instructblip.fused import (
    GROUP,
    Int4Linear,
    PackedLinear,
    expect_int4,
    fits_int4,
    int4_kernel,
    pack_linears,
    plain_linears,
    quantise,
    quantise_linears,
    unpack,
)


def plain(inputs: int, outputs: int, dtype: torch.dtype, bias: bool = False) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_a_packed_linear_gives_the_plain_result(rows: int, bias: bool) -> None:
    reference = plain(96, 160, torch.bfloat16, bias)
    x = torch.randn(2, rows, 96).bfloat16()
    packed = PackedLinear(reference)
    torch.testing.assert_close(packed(x), reference(x), atol=2e-2, rtol=2e-2)
    assert packed(x).shape == (2, rows, 160)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40).map(lambda n: 64 * n), st.integers(0, 1000))
def test_four_bits_are_within_half_a_level_of_each_weight(
    groups: int, outputs: int, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(outputs, groups * GROUP) * torch.rand(outputs, 1)
    packed, scales = quantise(weight)
    assert packed.shape == (outputs, groups * GROUP // 2)
    level = scales[..., 0].T.repeat_interleave(GROUP, 1)  # [out, in]
    back = unpack(packed, scales, torch.float32).T
    assert ((back - weight).abs() <= 0.5 * level + 1e-6).all()


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("outputs", [64, 2048 + 192, 100])
def test_a_four_bit_linear_gives_its_own_weights_result(
    outputs: int, rows: int, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(fused, "int4_kernel", lambda: False)
    quantised = Int4Linear.of(plain(256, outputs, torch.bfloat16, bias=True))
    x = torch.randn(rows, 256).bfloat16()
    weights = unpack(quantised.packed, quantised.scales, torch.float32)[:, :outputs]
    want = x.float() @ weights + quantised.bias.float()
    torch.testing.assert_close(quantised.plain()(x).float(), want, atol=0.05, rtol=0.05)
    torch.testing.assert_close(quantised(x).float(), want, atol=0.05, rtol=0.05)


def test_linears_are_swapped_where_they_fit_and_answers_stay_close() -> None:
    model = nn.Sequential(
        plain(256, 192, torch.bfloat16), nn.GELU(), plain(192, 100, torch.bfloat16)
    )
    empty = nn.Sequential(nn.Linear(256, 192, device="meta"), nn.Linear(192, 9, device="meta"))
    assert [fits_int4(model[0]), fits_int4(model[2])] == [True, False]
    x = torch.randn(4, 256).bfloat16()
    want = model(x)
    assert quantise_linears(model) == 1
    assert (model(x) - want).norm() < 0.2 * want.norm()
    assert expect_int4(empty) == 1
    for name, made in model[0].named_buffers():
        assert made.shape == getattr(empty[0], name).shape
    assert pack_linears(model) == 1
    assert [type(m) for m in model] == [Int4Linear, nn.GELU, PackedLinear]
    assert (model(x) - want).norm() < 0.2 * want.norm()
    assert plain_linears(model) == 1
    assert type(model[0]) is nn.Linear
    assert (model(x) - want).norm() < 0.2 * want.norm()


def test_without_the_private_operations_plain_modules_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise AttributeError("no such operation")

    fused.packing.cache_clear()
    monkeypatch.setattr(fused.PackedLinear, "__init__", missing)
    model = nn.Sequential(plain(64, 64, torch.bfloat16))
    try:
        assert pack_linears(model) == 0
    finally:
        fused.packing.cache_clear()
    assert type(model[0]) is nn.Linear


def test_fp32_stays_plain() -> None:
    model = nn.Sequential(plain(64, 64, torch.float32))
    assert pack_linears(model, torch.float32) == 0


def test_a_kernel_that_reads_another_layout_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    int4_kernel.cache_clear()
    monkeypatch.setattr(fused, "unpack", lambda *args: unpack(*args).flip(1))
    assert not int4_kernel()
    int4_kernel.cache_clear()
