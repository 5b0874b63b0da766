"""Each swapped-in module against its plain reference."""

import pytest
import torch
from torch import nn

from instructblip import fused
from instructblip.fused import (
    PackedLinear,
    WideLinear,
    attend,
    half_arithmetic,
    pack_linears,
    packing,
    widen_linears,
)


def plain(inputs: int, outputs: int, dtype: torch.dtype, bias: bool = False) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_a_packed_linear_gives_the_plain_result(rows: int, bias: bool) -> None:
    reference = plain(96, 160, torch.bfloat16, bias)
    x = torch.randn(2, rows, 96).bfloat16()
    model = nn.Sequential(reference)
    assert pack_linears(model) == packing(torch.bfloat16)  # AVX2 alone has no such layout
    assert isinstance(model[0], PackedLinear) == packing(torch.bfloat16)
    torch.testing.assert_close(model(x), reference(x), atol=2e-2, rtol=2e-2)
    assert model(x).shape == (2, rows, 160)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("outputs", [160, 600])
def test_a_wide_linear_gives_the_result_of_fp32(
    rows: int, outputs: int, bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "half_arithmetic", lambda dtype: dtype is torch.float32)
    reference = plain(96, outputs, dtype, bias)
    model = nn.Sequential(reference)
    x = torch.randn(2, rows, 96).to(dtype)
    want = nn.functional.linear(
        x.float(), reference.weight.float(), reference.bias.float() if bias else None
    )
    assert widen_linears(model) == 1
    assert type(model[0]) is WideLinear
    assert list(model.state_dict()) == list(nn.Sequential(reference).state_dict())
    out = model(x)
    assert out.dtype is dtype
    torch.testing.assert_close(out.float(), want, atol=1e-2, rtol=1e-2)


def test_where_half_precision_is_fast_nothing_is_widened() -> None:
    model = nn.Sequential(plain(64, 64, torch.float32))
    assert widen_linears(model) == 0
    assert half_arithmetic(torch.float32)


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


@pytest.mark.parametrize("arithmetic", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("mask", ["none", "causal", "per sequence"])
@pytest.mark.parametrize("queries", [1, 5, 70])
def test_attention_in_half_precision_gives_that_of_fp32(
    queries: int, mask: str, kv_heads: int, dtype: torch.dtype, arithmetic: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fused, "half_arithmetic", lambda dtype: arithmetic)
    monkeypatch.setattr(fused, "SCORES", 5 * 90)  # 5 queries go head by head, 1 with all at once
    generator = torch.Generator().manual_seed(queries)
    query = torch.randn(2, 4, queries, 32, generator=generator).to(dtype)
    arena = torch.randn(2, 2, kv_heads, 128, 32, generator=generator).to(dtype)
    key, value = arena[:, :, :, :90]  # a slot's beginning, as the engine hands it over
    seen = {
        "none": None,
        "causal": torch.ones(queries, 90, dtype=torch.bool).tril(90 - queries),
        "per sequence": (torch.arange(90) < torch.tensor([[90], [30]]))[:, None, None],
    }[mask]
    out = attend(query, key, value, seen)
    assert (out.dtype, out.shape) == (dtype, query.shape)
    want = attend(query.float(), key.float(), value.float(), seen)
    torch.testing.assert_close(out.float(), want, atol=2e-2, rtol=2e-2)
