"""The language model's layers in fewer, larger kernels for devices.

At batch 1 a decode step on a device waits for its kernels to be launched, so their number is what
to bring down: queries, keys and values come from one matmul, gate and up from another, and norm,
rotary embedding and SwiGLU are one kernel each (:mod:`instructblip.kernels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from instructblip.attention import SlotAttention
from instructblip.fused import attend
from instructblip.int4 import TileLinear
from instructblip.int8 import Int8Linear
from instructblip.kernels import FUSED, add_rms_norm, rms_norm, rotate, rotate_signed, swiglu

# isort: split
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm


class Residual(NamedTuple):
    """What a layer hands on, [B, n, width] each: the next norm adds them up."""

    branch: Tensor
    total: Tensor


class FusedNorm(LlamaRMSNorm):
    """The same weight, one kernel, which adds up a :class:`Residual` as well."""

    def forward(self, hidden_states: Tensor | Residual) -> Tensor:
        """[..., width] → [..., width]."""
        return self.of(hidden_states)[0]

    def of(self, hidden: Tensor | Residual) -> tuple[Tensor, Tensor]:
        """→ the norm, and what it is the norm of."""
        if isinstance(hidden, Residual):
            return add_rms_norm(*hidden, self.weight, self.variance_epsilon)
        return rms_norm(hidden, self.weight, self.variance_epsilon), hidden


class FusedMLP(LlamaMLP):
    """Gate and up in one matmul: ``gate_up`` of 2·n outputs."""

    gate_up: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        out: Tensor = self.down_proj(swiglu(self.gate_up(x)))
        return out


class FusedAttention(SlotAttention):
    """Queries, keys and values in one matmul, ``qkv``; queries and keys turned in one kernel."""

    qkv: nn.Module

    def project(self, hidden: Tensor, angles: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`SlotAttention.project`."""
        values = self.v_proj.out_features // self.head_dim
        queries = self.q_proj.out_features // self.head_dim
        heads = self.qkv(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        cos, sin, *more = angles
        signed = more[0] if more else None
        if signed is None:
            turned = rotate(heads[:, :-values], cos[:, None], sin[:, None])
        else:
            turned = rotate_signed(heads[:, :-values], cos[:, None], signed[:, None])
        return turned[:, :queries], turned[:, queries:], heads[:, -values:]


class FusedLayer(LlamaDecoderLayer):
    """Each residual is added by the norm that follows it, the last one in the next layer."""

    def forward(self, hidden_states: Tensor | Residual, *args: Any, **kwargs: Any) -> Residual:
        """[B, n, width] → [B, n, width]."""
        normed, total = self.input_layernorm.of(hidden_states)
        said, _ = self.self_attn(normed, *args, **kwargs)
        normed, total = self.post_attention_layernorm.of(Residual(said, total))
        return Residual(self.mlp(normed), total)


def fuse_for(weights: Any, device: torch.device) -> None:
    """Fuse a whole InstructBLIP on the devices that are :data:`FUSED`; others keep plain modules."""
    if device.type in FUSED:
        fuse_layers(weights.language_model)
    if device.type == "npu":
        for tower in (weights.vision_model, weights.qformer):
            tower.set_attn_implementation(TOWER_ATTENTION)


def tower_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """ViT's and Q-Former's attention in transformers' form: → [B, n, heads, d], no weights.

    Nothing is padded there, so there is no mask. The scale is d^-0.5 in both.
    """
    assert attention_mask is None
    return attend(query, key, value, None).transpose(1, 2), None


TOWER_ATTENTION = "instructblip_npu"
AttentionInterface.register(TOWER_ATTENTION, tower_attention)


def fuse_layers(language_model: nn.Module) -> None:
    """Give a LLaMA the modules above. Weights keep their names, as views of the merged ones."""
    model: Any = language_model.model
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        merged = _merge(attention.q_proj, attention.k_proj, attention.v_proj)
        if merged is not None:
            object.__setattr__(attention, "qkv", merged)  # a submodule's weights would be in files
            attention.__class__ = FusedAttention
        merged = _merge(mlp.gate_proj, mlp.up_proj)
        if merged is not None:
            object.__setattr__(mlp, "gate_up", merged)
            mlp.__class__ = FusedMLP
        layer.__class__ = FusedLayer
        layer.input_layernorm.__class__ = FusedNorm
        layer.post_attention_layernorm.__class__ = FusedNorm
    model.norm.__class__ = FusedNorm


def _merge(*linears: Any) -> nn.Module | None:
    """One linear for several of the same input, whose weights become views of its own.

    None where they are of another kind or have a bias: they stay as they are.
    """
    if all(type(m) is TileLinear and m.bias is None for m in linears):
        return TileLinear.merged(linears)
    if all(type(m) is Int8Linear and m.bias is None for m in linears):
        return Int8Linear.merged(linears)
    if not all(type(m) is nn.Linear and m.bias is None for m in linears):
        return None
    weight = torch.cat([m.weight.detach() for m in linears])
    parts = torch.split(weight, [m.out_features for m in linears])
    for module, part in zip(linears, parts, strict=True):
        module.weight = nn.Parameter(part, requires_grad=False)
    merged = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    merged.weight = nn.Parameter(weight, requires_grad=False)
    return merged
