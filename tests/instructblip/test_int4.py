"""4-bit linears against their own weights, unpacked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from instructblip import int4, weight_only
from instructblip.fused import pack_linears, packing
from instructblip.int4 import (
    BLOCK,
    GROUP,
    NARROW_BLOCK,
    Int4Linear,
    TileLinear,
    keeps_int4,
    kernel_block,
    levels_of,
    narrowed,
    pack,
    quantise,
    suit_int4,
    unpack,
)
from instructblip.weight_only import expect_linears, quantise_linears
from tests.instructblip.test_fused import plain

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("block", [BLOCK, NARROW_BLOCK])
def test_both_layouts_hold_the_same_levels(block: int) -> None:
    levels = torch.randint(0, 16, (192, 256), dtype=torch.uint8)
    assert torch.equal(levels_of(pack(levels, block), block), levels)
    assert torch.equal(narrowed(pack(levels)), pack(levels, NARROW_BLOCK))
    scales = torch.rand(2, 192, 2)
    assert torch.equal(
        unpack(pack(levels, block), scales, torch.float32, block),
        unpack(pack(levels), scales, torch.float32),
    )


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40, 70])
@pytest.mark.parametrize("outputs", [64, 2048 + 192, 100])
def test_a_four_bit_linear_gives_its_own_weights_result(
    outputs: int, rows: int, kernel: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(int4, "kernel_block", lambda: 0)
    monkeypatch.setattr(weight_only, "half_arithmetic", lambda dtype: half)
    quantised = Int4Linear.of(plain(256, outputs, torch.bfloat16, bias=True))
    x = torch.randn(rows, 256).bfloat16()
    weights = unpack(quantised.packed, quantised.scales, torch.float32)[:, :outputs]
    want = x.float() @ weights + quantised.bias.float()
    torch.testing.assert_close(quantised.plain()(x).float(), want, atol=0.05, rtol=0.05)
    torch.testing.assert_close(quantised(x).float(), want, atol=0.05, rtol=0.05)
    quantised.narrow()
    torch.testing.assert_close(quantised.plain()(x).float(), want, atol=0.05, rtol=0.05)
    torch.testing.assert_close(quantised(x).float(), want, atol=0.05, rtol=0.05)


def test_a_model_gets_the_layout_of_this_processor_s_kernel() -> None:
    """Every processor that the tests run on has a kernel; without it a token takes fifty times as long."""
    model = nn.Sequential(plain(256, 192, torch.bfloat16))
    quantise_linears(model, Int4Linear)
    assert suit_int4(model, CPU) == 1
    assert model[0].block == kernel_block() > 0


def test_linears_are_swapped_where_they_fit_and_answers_stay_close() -> None:
    model = nn.Sequential(
        plain(256, 192, torch.bfloat16), nn.GELU(), plain(192, 100, torch.bfloat16)
    )
    empty = nn.Sequential(nn.Linear(256, 192, device="meta"), nn.Linear(192, 9, device="meta"))
    assert [Int4Linear.fits(model[0]), Int4Linear.fits(model[2])] == [True, False]
    x = torch.randn(4, 256).bfloat16()
    want = model(x)
    assert quantise_linears(model, Int4Linear) == 1
    assert (model(x) - want).norm() < 0.2 * want.norm()
    assert expect_linears(empty, Int4Linear) == 1
    for name, made in model[0].named_buffers():
        assert made.shape == getattr(empty[0], name).shape
    assert pack_linears(model) == packing(torch.bfloat16)
    assert (model(x) - want).norm() < 0.2 * want.norm()
    assert suit_int4(model, torch.device("meta")) == 1  # a device without a kernel of its own
    assert type(model[0]) is nn.Linear
    assert (model(x) - want).norm() < 0.2 * want.norm()


def test_a_kernel_that_reads_another_layout_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_block.cache_clear()
    monkeypatch.setattr(int4, "unpack", lambda *args: unpack(*args).flip(1))
    assert kernel_block() == 0
    kernel_block.cache_clear()


# --- CUDA's layout: the device's own packing needs one, so any other fixed order stands in for it -----


@pytest.fixture
def packing_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of inputs, the first in the high half, to tiles of 8 × 128 in an order of its own."""
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(1))

    def convert(pairs: torch.Tensor, steps: int) -> torch.Tensor:
        assert steps == 8
        levels = torch.stack([pairs >> 4, pairs & 15], -1).flatten(1).long()
        tiles = levels.unflatten(0, (-1, 8)).unflatten(2, (-1, 128)).transpose(1, 2).flatten(2)
        words = tiles[:, :, order].unflatten(2, (-1, 8)) << torch.arange(0, 32, 4)
        return words.sum(-1).to(torch.int32).unflatten(2, (32, 4))

    monkeypatch.setattr(torch.ops.aten, "_convert_weight_to_int4pack", convert)
    monkeypatch.setattr(int4, "usable", lambda name, device: True)
    monkeypatch.setattr(int4, "FEW_ROWS_TILES", 0)
    int4.tile_places.cache_clear()
    yield
    int4.tile_places.cache_clear()


@pytest.mark.parametrize("outputs", [64, 100])
def test_tiles_carry_the_same_weights(outputs: int, packing_of_a_device: None) -> None:
    stored = Int4Linear.of(plain(256, outputs, torch.bfloat16, bias=True))
    made = TileLinear.of(stored)
    x = torch.randn(2, 20, 256).bfloat16()
    torch.testing.assert_close(made(x).float(), stored.plain()(x).float(), atol=0.05, rtol=0.05)
    assert made(x).shape == (2, 20, outputs)
    assert made(x).dtype is torch.bfloat16


def test_merged_tiles_are_one_linear_and_take_no_second_copy(packing_of_a_device: None) -> None:
    parts = [TileLinear.of(Int4Linear.of(plain(256, n, torch.bfloat16))) for n in (64, 128)]
    x = torch.randn(3, 256).bfloat16()
    want = torch.cat([part(x) for part in parts], -1)
    merged = TileLinear.merged(parts)
    assert torch.equal(merged(x), want)
    assert torch.equal(torch.cat([part(x) for part in parts], -1), want)
    storage = merged.packed.untyped_storage().data_ptr()
    assert {part.packed.untyped_storage().data_ptr() for part in parts} == {storage}
    padded = TileLinear.of(Int4Linear.of(plain(256, 100, torch.bfloat16)))
    assert TileLinear.merged([padded, parts[0]]) is None


def test_four_bits_stay_where_a_kernel_runs_them() -> None:
    assert keeps_int4(CPU)
    assert not keeps_int4(torch.device("meta"))
