"""The fused layers of the NPU against transformers' own, on the CPU, where no operator is fused."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from instructblip import fused_layers, kernels
from instructblip.attention import use_slots
from instructblip.devices import as_device_error
from instructblip.errors import OutOfMemory
from instructblip.fused import attend, attend_written_out
from instructblip.int4 import Int4Linear

CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=128, intermediate_size=192, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
CPU = torch.device("cpu")


class Slots:
    """Attends causally over the positions of this forward, which is all there is."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
        return attend(query, key, value, mask).transpose(1, 2).flatten(2)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    """A small LLaMA with grouped heads."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval().requires_grad_(False)
    use_slots(model)
    return model


def forward(llama: Any, **more: Any) -> Tensor:
    """Hidden states of a few positions, through the slots."""
    hidden = torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(1))
    model = llama.model
    angles = model.rotary_emb(hidden, position_ids=torch.arange(7)[None].expand(2, 7))
    for layer in model.layers:
        hidden = layer(hidden, position_embeddings=angles, slots=Slots(), **more)
    out: Tensor = model.norm(hidden)
    return out


def test_fused_layers_give_the_plain_layers_result(llama: LlamaForCausalLM) -> None:
    want, ids = forward(llama), torch.arange(9)[None]
    plain, names = llama(ids).logits, list(llama.state_dict())
    fused_layers.fuse_layers(llama)
    layer = llama.model.layers[0]
    kinds = (layer, layer.self_attn, layer.mlp, layer.input_layernorm, llama.model.norm)
    assert [type(m).__name__ for m in kinds] == [
        "FusedLayer", "FusedAttention", "FusedMLP", "FusedNorm", "FusedNorm"
    ]  # fmt: skip
    torch.testing.assert_close(forward(llama), want)
    torch.testing.assert_close(llama(ids).logits, plain)  # without slots, as transformers calls it
    assert list(llama.state_dict()) == names


def test_merged_weights_take_no_second_copy(llama: LlamaForCausalLM) -> None:
    before = copy.deepcopy(llama.state_dict())
    fused_layers.fuse_layers(llama)
    attention, mlp = llama.model.layers[1].self_attn, llama.model.layers[1].mlp
    for merged, parts in (
        (attention.qkv, (attention.q_proj, attention.k_proj, attention.v_proj)),
        (mlp.gate_up, (mlp.gate_proj, mlp.up_proj)),
    ):
        storage = merged.weight.untyped_storage().data_ptr()
        assert {m.weight.untyped_storage().data_ptr() for m in parts} == {storage}
    for name, tensor in llama.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.up_proj"])
def test_quantised_linears_are_not_merged(llama: LlamaForCausalLM, name: str) -> None:
    for layer in llama.model.layers:
        parent, _, child = name.partition(".")
        module = getattr(layer, parent)
        plain = nn.Linear(128, getattr(module, child).out_features, bias=False)
        setattr(module, child, Int4Linear.of(plain.requires_grad_(False)))
    want = forward(llama)
    fused_layers.fuse_layers(llama)
    assert type(getattr(llama.model.layers[0], parent)).__name__ in ("SlotAttention", "LlamaMLP")
    torch.testing.assert_close(forward(llama), want)


def test_a_bias_is_not_lost(llama: LlamaForCausalLM) -> None:
    for layer in llama.model.layers:
        layer.self_attn.q_proj.bias = nn.Parameter(torch.ones(128), requires_grad=False)
    want = forward(llama)
    fused_layers.fuse_layers(llama)
    torch.testing.assert_close(forward(llama), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_references_are_transformers_arithmetic(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 128, dtype=dtype), torch.randn(2, 3, 128, dtype=dtype)
    norm = LlamaRMSNorm(128, 1e-5).to(dtype)
    norm.weight.data.normal_()
    torch.testing.assert_close(kernels.rms_norm(x, norm.weight, 1e-5), norm(x))
    normed, total = kernels.add_rms_norm(x, y, norm.weight, 1e-5)
    torch.testing.assert_close(total, x + y)
    torch.testing.assert_close(normed, norm(x + y))

    mlp = LlamaMLP(CONFIG).to(dtype)
    gate_up = torch.cat([mlp.gate_proj(x), mlp.up_proj(x)], -1)
    torch.testing.assert_close(mlp.down_proj(kernels.swiglu(gate_up)), mlp(x))

    heads = torch.randn(2, 4, 3, 32, dtype=dtype)
    cos, sin = LlamaRotaryEmbedding(CONFIG)(x, torch.tensor([[5, 6, 7], [0, 1, 2]]))
    want, _ = apply_rotary_pos_emb(heads, heads, cos, sin)
    torch.testing.assert_close(kernels.rotate(heads, cos[:, None], sin[:, None]), want)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_attention_written_out(dtype: torch.dtype, groups: int, masked: bool) -> None:
    torch.manual_seed(0)
    query, *kept = (
        torch.randn(3, n, m, 16).to(dtype) for n, m in ((4, 2), *[(4 // groups, 9)] * 2)
    )
    seen = (torch.arange(9) <= torch.tensor([2, 8, 0])[:, None])[:, None, None]
    low = torch.finfo(torch.float16).min
    added = torch.zeros(seen.shape).masked_fill(~seen, low).half()
    out = attend_written_out(query, *kept, added if masked else None)
    want = attend(query.float(), *(t.float() for t in kept), seen if masked else None)
    assert out.dtype is dtype
    torch.testing.assert_close(out.float(), want, atol=5e-3, rtol=5e-3)


def test_towers_attend_as_transformers_does() -> None:
    query, key, value = (torch.randn(1, 2, n, 8) for n in (3, 5, 5))
    out, weights = fused_layers.tower_attention(
        nn.Identity(), query, key, value, None, scaling=8**-0.5
    )
    want = (query @ key.transpose(-1, -2) * 8**-0.5).softmax(-1) @ value
    torch.testing.assert_close(out, want.transpose(1, 2))
    assert weights is None
    with pytest.raises(AssertionError):
        fused_layers.tower_attention(nn.Identity(), query, key, value, torch.ones(3, 5))


# --- an operator that this CANN lacks, or that is wrong --------------------------------------------


def absent(*_: object) -> Tensor:
    raise RuntimeError("aclnnSwiGlu not in libopapi.so")


@pytest.mark.parametrize(
    ("operator", "works", "word"),
    [
        (kernels.plain_swiglu, True, ""),
        (lambda x: kernels.plain_swiglu(x) * 1.1, False, "differs from plain arithmetic"),
        (absent, False, "not in libopapi.so"),
    ],
)
def test_an_operator_is_tried_before_it_is_used(
    operator: Callable[..., Tensor], works: bool, word: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(kernels, "_fused", lambda name, kind: operator)
    kernels._tried.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert kernels._tried("swiglu", CPU) is works
    assert word in caplog.text
    assert bool(caplog.text) is not works
    kernels._tried.cache_clear()


def test_no_operator_of_the_npu_is_tried_elsewhere() -> None:
    assert not any(kernels.usable(name, CPU) for name in kernels._PLAIN)


@pytest.mark.parametrize("code", [207001, 207018])
def test_cann_codes_of_a_full_device_are_out_of_memory(code: int) -> None:
    error = as_device_error(RuntimeError(f"aclrtMalloc failed, error code is {code}"))
    assert isinstance(error, OutOfMemory)
    assert as_device_error(ValueError(f"error code is {code}")) is None
