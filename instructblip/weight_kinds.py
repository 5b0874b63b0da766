"""Kinds of weights that ``python -m instructblip bench`` compares, and the kind that is served."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from instructblip.bench import build
from instructblip.checkpoints.loading import may_prepack
from instructblip.fused import PackedLinear, half_arithmetic, pack_linears, packing, widen_linears
from instructblip.int4 import keeps_int4
from instructblip.model import InstructBlip

LOADED, PREPACKED, WIDE, FOUR_BITS = "as loaded", "prepacked", "wide", "4 bits"


def kinds(model: InstructBlip, args: argparse.Namespace) -> list[str]:
    """Kinds of weights to measure: those that this device gains from, of models that may be changed."""
    found = [LOADED]
    if model.device.type == "cpu" and args.shape and model.dtype is not torch.float32:
        found += [PREPACKED] * packing(model.dtype) + [WIDE] * (not half_arithmetic(model.dtype))
    if args.shape and keeps_int4(model.device):
        found.append(FOUR_BITS)
    return found


def served(model: InstructBlip, args: argparse.Namespace) -> tuple[str, InstructBlip]:
    """The kind of weights that ``load()`` would serve this model with, and a model of it.

    Transformers keeps the plain ones; where the memory does not hold both, so do we.
    """
    best = next((kind for kind in kinds(model, args) if kind in (PREPACKED, WIDE)), LOADED)
    # A second model, and its packed weights one by one.
    if best == LOADED or not may_prepack(model.weights, None):
        return LOADED, model
    return best, of_kind(best, model, args)


def of_kind(name: str, model: InstructBlip, args: argparse.Namespace) -> InstructBlip:
    """The model itself, or another one with weights of that kind."""
    if name == LOADED:
        return model
    made = build(args, int4=name == FOUR_BITS)
    if name == PREPACKED:
        pack_linears(made.weights.language_model, dtype=model.dtype)
    if name == WIDE:
        widen_linears(made.weights)
    return made


def weight_bytes(root: Any) -> int:
    """Bytes of weights that one token reads: all but the embedding table."""
    skip = root.get_input_embeddings().weight
    tensors = [*root.parameters(), *root.buffers()]
    tensors += [m.packed for m in root.modules() if isinstance(m, PackedLinear)]
    # Tied weights are one parameter; oneDNN's own tensors have no address to compare.
    return sum(t.numel() * t.element_size() for t in tensors if t is not skip)
