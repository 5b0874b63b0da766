"""The language model's layers in fewer, larger kernels for the NPU, each with a plain reference.

At batch 1 a decode step on an NPU waits for its kernels to be launched, so their number is what to
bring down: queries, keys and values come from one matmul, gate and up from another, and torch_npu's
fused operators do norm, rotary embedding and SwiGLU. An operator that this CANN or chip lacks, or
that differs from its reference on a small input, is left out.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from instructblip.attention import SlotAttention
from instructblip.devices import fp16_only
from instructblip.fused import attend

# isort: split
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm

log = logging.getLogger(__name__)

# On 910A and 310P torch_npu has these as old-style operators only, compiled at run time.
_COMPILED_ON_OLD_CHIPS = ("rotate",)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x [..., width] over its root mean square, in fp32 inside (arXiv:1910.07467)."""
    if usable("rms_norm", x.device):
        normed: Tensor = torch.ops.npu.npu_rms_norm(x, weight, epsilon)[0]
        return normed
    return plain_rms_norm(x, weight, epsilon)


def plain_rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """The reference of :func:`rms_norm`."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(x.dtype)


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """→ the norm of x + y, and x + y."""
    if usable("add_rms_norm", x.device):
        normed, _, total = torch.ops.npu.npu_add_rms_norm(x, y, weight, epsilon)
        return normed, total
    return plain_add_rms_norm(x, y, weight, epsilon)


def plain_add_rms_norm(
    x: Tensor, y: Tensor, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The reference of :func:`add_rms_norm`."""
    total = x + y
    return plain_rms_norm(total, weight, epsilon), total


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (arXiv:2104.09864) of x [B, heads, n, d]; cos and sin [B, 1, n, d]."""
    if usable("rotate", x.device):
        turned: Tensor = torch.ops.npu.npu_rotary_mul(x, cos, sin)
        return turned
    return plain_rotate(x, cos, sin)


def plain_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The reference of :func:`rotate`: LLaMA's, which turns the two halves of d."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def swiglu(x: Tensor) -> Tensor:
    """x [..., 2·n], gate and up side by side → silu(gate)·up [..., n] (arXiv:2002.05202)."""
    if usable("swiglu", x.device):
        out: Tensor = torch.ops.npu.npu_swiglu(x.contiguous())
        return out
    return plain_swiglu(x)


def plain_swiglu(x: Tensor) -> Tensor:
    """The reference of :func:`swiglu`."""
    gate, up = x.chunk(2, -1)
    return silu(gate) * up


# --- which operators this device has ------------------------------------------------------------


def usable(name: str, device: torch.device) -> bool:
    """Whether a fused operator is to be used on a device; tried once, before it is first used."""
    if device.type != "npu" or (name in _COMPILED_ON_OLD_CHIPS and fp16_only(device)):
        return False
    return _tried(name, device)


@functools.cache
def _tried(name: str, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "rms_norm": ((2, 64), (64,)), "add_rms_norm": ((2, 64), (2, 64), (64,)),
        "rotate": ((2, 4, 3, 64), (2, 1, 3, 64), (2, 1, 3, 64)), "swiglu": ((2, 128),),
    }[name]  # fmt: skip
    inputs = [torch.randn(shape, generator=generator).half() for shape in shapes]
    rest = (1e-6,) if name.endswith("norm") else ()
    try:
        out = _FUSED[name](*(x.to(device) for x in inputs), *rest)
        want = _PLAIN[name](*inputs, *rest)
        same = all(
            torch.allclose(a.cpu().float(), b.float(), atol=2e-2, rtol=2e-2)
            for a, b in zip(_several(out), _several(want), strict=True)
        )
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.warning("%s has no fused %s and goes on without: %s", device, name, error)
        return False
    if not same:
        log.warning("%s's fused %s differs from plain arithmetic and is left out.", device, name)
    return same


def _several(made: Any) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


_FUSED: dict[str, Callable[..., Any]] = {
    "rms_norm": lambda *a: torch.ops.npu.npu_rms_norm(*a)[0],
    "add_rms_norm": lambda *a: torch.ops.npu.npu_add_rms_norm(*a)[::2],
    "rotate": lambda *a: torch.ops.npu.npu_rotary_mul(*a),
    "swiglu": lambda *a: torch.ops.npu.npu_swiglu(*a),
}
_PLAIN: dict[str, Callable[..., Any]] = {
    "rms_norm": plain_rms_norm, "add_rms_norm": plain_add_rms_norm,
    "rotate": plain_rotate, "swiglu": plain_swiglu,
}  # fmt: skip


# --- modules --------------------------------------------------------------------------------------


class FusedNorm(LlamaRMSNorm):
    """The same weight, one kernel."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)


class FusedMLP(LlamaMLP):
    """Gate and up in one matmul: ``gate_up`` [2·n, width]."""

    gate_up: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        out: Tensor = self.down_proj(swiglu(linear(x, self.gate_up)))
        return out


class FusedAttention(SlotAttention):
    """Queries, keys and values in one matmul, ``qkv``; queries and keys turned in one kernel."""

    qkv: Tensor

    def project(
        self, hidden: Tensor, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`SlotAttention.project`."""
        values = self.v_proj.out_features // self.head_dim
        queries = self.q_proj.out_features // self.head_dim
        heads = linear(hidden, self.qkv).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        cos, sin = angles
        turned = rotate(heads[:, :-values], cos[:, None], sin[:, None])
        return turned[:, :queries], turned[:, queries:], heads[:, -values:]


class FusedLayer(LlamaDecoderLayer):
    """The residual is added by the norm that follows it."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B, n, width] → [B, n, width]."""
        normed = self.input_layernorm(hidden_states)
        said, _ = self.self_attn(normed, *args, **kwargs)
        norm = self.post_attention_layernorm
        normed, total = add_rms_norm(said, hidden_states, norm.weight, norm.variance_epsilon)
        out: Tensor = total + self.mlp(normed)
        return out


def fuse_for(weights: Any, device: torch.device) -> None:
    """Fuse a whole InstructBLIP on an NPU; other devices keep the plain modules."""
    if device.type == "npu":
        fuse_layers(weights.language_model)
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
            attention.register_buffer("qkv", merged, persistent=False)
            attention.__class__ = FusedAttention
        merged = _merge(mlp.gate_proj, mlp.up_proj)
        if merged is not None:
            mlp.register_buffer("gate_up", merged, persistent=False)
            mlp.__class__ = FusedMLP
        layer.__class__ = FusedLayer
        layer.input_layernorm.__class__ = FusedNorm
        layer.post_attention_layernorm.__class__ = FusedNorm
    model.norm.__class__ = FusedNorm


def _merge(*linears: nn.Module) -> Tensor | None:
    """One weight for several linears of the same input; theirs become views of it.

    None where one is quantised or has a bias: they stay as they are.
    """
    plain: list[Any] = [m for m in linears if type(m) is nn.Linear and m.bias is None]
    if len(plain) < len(linears):
        return None
    merged = torch.cat([m.weight.detach() for m in plain])
    parts = torch.split(merged, [m.out_features for m in plain])
    for module, part in zip(plain, parts, strict=True):
        module.weight = nn.Parameter(part, requires_grad=False)
    return merged
