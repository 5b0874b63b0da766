"""The language model's layers in fewer, larger kernels for devices, each with a plain reference.

At batch 1 a decode step on a device waits for its kernels to be launched, so their number is what
to bring down: queries, keys and values come from one matmul, gate and up from another; norm, rotary
embedding and SwiGLU are one kernel each, torch_npu's own on an NPU, torch.compile's of the plain
reference on CUDA. A kernel that the device lacks, or that differs from its reference on a small
input, is left out.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from instructblip.attention import SlotAttention
from instructblip.devices import fp16_only
from instructblip.fused import attend
from instructblip.int4 import TileLinear

# isort: split
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm

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


# --- which kernels this device has --------------------------------------------------------------


def usable(name: str, device: torch.device) -> bool:
    """Whether a fused kernel is to be used on a device; tried once, before it is first used."""
    if device.type not in FUSED:
        return False
    if device.type == "npu" and name in _COMPILED_ON_OLD_CHIPS and fp16_only(device):
        return False
    return _tried(name, device)


def _best(name: str, device: torch.device) -> Callable[..., Any]:
    return _fused(name, device.type) if usable(name, device) else _PLAIN[name]


@functools.cache
def _fused(name: str, kind: str) -> Callable[..., Any]:
    return _OPERATORS[name] if kind == "npu" else torch.compile(_PLAIN[name])


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
        out = _fused(name, device.type)(*(x.to(device) for x in inputs), *rest)
        want = _PLAIN[name](*inputs, *rest)
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


def _several(made: Any) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "rms_norm": lambda *a: torch.ops.npu.npu_rms_norm(*a)[0],
    "add_rms_norm": lambda *a: torch.ops.npu.npu_add_rms_norm(*a)[::2],
    "rotate": lambda *a: torch.ops.npu.npu_rotary_mul(*a),
    "swiglu": lambda x: torch.ops.npu.npu_swiglu(x.contiguous()),
}
_PLAIN: dict[str, Callable[..., Any]] = {
    "rms_norm": plain_rms_norm, "add_rms_norm": plain_add_rms_norm,
    "rotate": plain_rotate, "swiglu": plain_swiglu,
}  # fmt: skip


# --- modules --------------------------------------------------------------------------------------


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
    if not all(type(m) is nn.Linear and m.bias is None for m in linears):
        return None
    weight = torch.cat([m.weight.detach() for m in linears])
    parts = torch.split(weight, [m.out_features for m in linears])
    for module, part in zip(linears, parts, strict=True):
        module.weight = nn.Parameter(part, requires_grad=False)
    merged = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    merged.weight = nn.Parameter(weight, requires_grad=False)
    return merged
