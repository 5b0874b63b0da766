"""The parts of ``python -m instructblip bench`` that compare kinds of weights: decode and prefill."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from torch import Tensor

from instructblip.bench import Clock, Table, build
from instructblip.engine.steps import Piece, Stepper
from instructblip.fused import PackedLinear, half_arithmetic, pack_linears, packing, widen_linears
from instructblip.int4 import keeps_int4
from instructblip.measures import filled, stepper, their_cache, their_step
from instructblip.model import InstructBlip

PREFILL = 160  # positions


def decode(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Tokens a second at batch 1 with each kind of weights, and the share of the bandwidth."""
    limit = bandwidth(model, clock, args.repeats)
    arena, (slot, *_) = filled(model, [args.context[0]])
    cache = their_cache(model, arena, slot)
    table = Table(
        "decode", ("weights", "ours tokens/s", "transformers tokens/s", "of the bandwidth", "times"),
        note=f"batch 1, {args.context[0]} tokens of context; bandwidth read {limit / 1e9:.1f} GB/s",
    )  # fmt: skip
    for name in _kinds(model, args):
        mine = _of_kind(name, model, args)
        step = stepper(mine, arena)
        one, two = clock.medians(
            args.repeats,
            partial(step.run, [Piece(slot, token=7)]),
            partial(their_step, model, cache),
        )
        share = _weight_bytes(mine.weights.language_model) / one / limit
        table.rows.append((name, 1 / one, 1 / two, share, two / one))
    return table


def prefill(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Milliseconds of a prefill into an empty slot, with each kind of weights."""
    arena, (slot,) = filled(model, [1])
    embeds = model.embed([7] * PREFILL)
    table = Table(
        "prefill", ("weights", "ours ms", "transformers ms", "times"), note=f"{PREFILL} positions"
    )
    for name in _kinds(model, args):
        step = stepper(_of_kind(name, model, args), arena)

        def ours(step: Stepper = step) -> None:
            arena.cut(slot, 0)
            step.run([Piece(slot, embeds)])

        one, two = clock.medians(args.repeats, ours, partial(_their_prefill, model, embeds))
        table.rows.append((name, one * 1e3, two * 1e3, two / one))
    return table


@torch.inference_mode()
def _their_prefill(model: InstructBlip, embeds: Tensor) -> None:
    model.weights.language_model(inputs_embeds=embeds[None], use_cache=True, logits_to_keep=1)


def _kinds(model: InstructBlip, args: argparse.Namespace) -> list[str]:
    """Kinds of weights to measure: those that this device gains from, of models that may be changed."""
    kinds = ["as loaded"]
    if model.device.type == "cpu" and args.shape and model.dtype is not torch.float32:
        kinds += ["prepacked"] * packing(model.dtype) + ["wide"] * (
            not half_arithmetic(model.dtype)
        )
    if args.shape and keeps_int4(model.device):
        kinds.append("4 bits")
    return kinds


def _of_kind(name: str, model: InstructBlip, args: argparse.Namespace) -> InstructBlip:
    """The model itself, or another one with weights of that kind."""
    if name == "as loaded":
        return model
    made = build(args, int4=name == "4 bits")
    if name == "prepacked":
        pack_linears(made.weights.language_model, dtype=model.dtype)
    if name == "wide":
        widen_linears(made.weights)
    return made


def _weight_bytes(root: Any) -> int:
    """Bytes of weights that one token reads: all but the embedding table."""
    skip = root.get_input_embeddings().weight.data_ptr()
    tensors = [*root.parameters(), *root.buffers()]
    tensors += [m.packed for m in root.modules() if isinstance(m, PackedLinear)]
    return sum(t.numel() * t.element_size() for t in tensors if t.data_ptr() != skip)


def bandwidth(model: InstructBlip, clock: Clock, repeats: int) -> float:
    """Bytes a second that this device reads from its memory: the sum of 256 MiB."""
    big = torch.ones(1 << 26, dtype=torch.float32, device=model.device)
    (seconds,) = clock.medians(repeats, lambda: big.sum())
    return big.numel() * 4 / seconds
