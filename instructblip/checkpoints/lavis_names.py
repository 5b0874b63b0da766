"""LAVIS's tensors → the model's entries: names, and the few tensors that are made anew.

Source of the names: LAVIS's blip2_vicuna_instruct.py, Qformer.py and eva_vit.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from instructblip.checkpoints.assemble import IGNORED, Entry, copied
from instructblip.checkpoints.files import Stored

EVA_PREFIX, LLM_PREFIX = "visual_encoder.", "llm_model."
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_BLOCK_NAMES = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_EVA_NAMES = {
    "cls_token": "class_embedding", "pos_embed": "position_embedding",
    "patch_embed.proj.weight": "patch_embedding.weight",
    "patch_embed.proj.bias": "patch_embedding.bias",
}  # fmt: skip
_UNUSED_EVA = ("norm.", "fc_norm.", "head.")


def vision_entries(eva: Mapping[str, Stored], vision: Any) -> list[Entry]:
    """The ViT; blocks beyond its depth, the last norm and the head are not used."""
    entries = []
    for name, stored in eva.items():
        block = BLOCK.match(name)
        if name == "pos_embed":
            entries.append(_positions(stored, vision.image_size // vision.patch_size))
        elif name in _EVA_NAMES:
            entries.append(copied("vision_model.embeddings." + _EVA_NAMES[name], stored))
        elif block and int(block[1]) < vision.num_hidden_layers:
            entries += _block(eva, int(block[1]), block[2], stored)
    return entries


def qformer_entries(blip: Mapping[str, Stored]) -> list[Entry]:
    """Query tokens, Q-Former, the norm after the ViT, and the projection."""
    return [copied(new, s) for old, s in blip.items() if (new := qformer_name(old)) is not None]


def qformer_name(name: str) -> str | None:
    """The model's name of a tensor of the trimmed file; None if it has no place there."""
    if name == "query_tokens":
        return name
    for old, new in (("ln_vision.", "vision_model.post_layernorm."),
                     ("llm_proj.", "language_projection.")):  # fmt: skip
        if name.startswith(old):
            return new + name.removeprefix(old)
    if not name.startswith("Qformer.bert.") or name.endswith(IGNORED):
        return None
    name = name.replace("Qformer.bert.", "qformer.", 1)
    name = name.replace("embeddings.LayerNorm", "embeddings.layernorm")
    return name.replace("attention.self.", "attention.attention.")


def language_entries(llm: Mapping[str, Stored], rows: int, *, tied: bool) -> list[Entry]:
    """The language model, with ``rows`` words; ``tied``: its last layer is its embedding."""
    entries = []
    for name, stored in llm.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            entries.append(_padded("language_model." + name, stored, rows))
        elif not name.endswith(IGNORED):
            entries.append(copied("language_model." + name, stored))
    if tied and "lm_head.weight" not in llm and "model.embed_tokens.weight" in llm:
        embeddings = llm["model.embed_tokens.weight"]
        entries.append(_padded("language_model.lm_head.weight", embeddings, rows))
    return entries


def unexpected(blip: Iterable[str], eva: Iterable[str]) -> tuple[str, ...]:
    """Names that no rule takes and no rule ignores."""
    rest = [
        name for name in blip
        if not name.startswith((EVA_PREFIX, LLM_PREFIX, "Qformer.cls."))
        and qformer_name(name) is None and not name.endswith(IGNORED)
    ]  # fmt: skip
    for name in eva:
        block = BLOCK.match(name)
        known = block and (
            block[2] in ("attn.q_bias", "attn.v_bias")
            or block[2].rpartition(".")[0] in _BLOCK_NAMES
        )
        if not (known or name in _EVA_NAMES or name.startswith(_UNUSED_EVA)):
            rest.append(name)
    return tuple(rest)


def _block(eva: Mapping[str, Stored], number: int, rest: str, stored: Stored) -> list[Entry]:
    target = f"vision_model.encoder.layers.{number}."
    if rest == "attn.q_bias":
        other = eva.get(f"blocks.{number}.attn.v_bias")
        return [_qkv_bias(target + "self_attn.qkv.bias", stored, other)] if other else []
    module, _, kind = rest.rpartition(".")
    if module in _BLOCK_NAMES:
        return [copied(f"{target}{_BLOCK_NAMES[module]}.{kind}", stored)]
    return []


def _qkv_bias(name: str, q: Stored, v: Stored) -> Entry:
    """EVA has no bias for keys: cat(q, 0, v)."""

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        first, last = tensors[q.name], tensors[v.name]
        return torch.cat([first, torch.zeros_like(first), last])

    return Entry(name, (3 * q.shape[0],), q.dtype, q.file, make, anew=True)


def _positions(stored: Stored, side: int) -> Entry:
    """Position embeddings, resized bicubically in fp32 where the picture's size is another.

    Source: interpolate_pos_embed of lavis/models/eva_vit.py.
    """
    old = math.isqrt(stored.shape[1] - 1)

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        given = tensors[stored.name]
        if old == side:
            return given
        grid = given[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic")
        flat = grid.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([given[:, :1].float(), flat], dim=1)

    shape = (1, side * side + 1, stored.shape[-1])
    name = "vision_model.embeddings.position_embedding"
    return Entry(name, shape, stored.dtype, stored.file, make, anew=old != side)


def _padded(name: str, stored: Stored, rows: int) -> Entry:
    """Rows of zeros for [PAD] and <image>: no checkpoint has them, and no answer holds them."""

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        given = tensors[stored.name]
        return torch.nn.functional.pad(given, (0, 0, 0, rows - given.shape[0]))

    return Entry(name, (rows, *stored.shape[1:]), stored.dtype, stored.file, make, anew=True)
