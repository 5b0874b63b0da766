"""Flags that several commands share, and what is made of them."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from instructblip.engine.base import SamplingParams
from instructblip.quick import no_collection

if TYPE_CHECKING:
    from instructblip.model import InstructBlip


def add_flag(parser: argparse._ActionsContainer, name: str, **how: Any) -> None:
    """Add ``--a_name``, also spelled ``--a-name``."""
    spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    parser.add_argument(*spellings, **how)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Which weights, on which device, in which dtype."""
    parser.add_argument("--model", default="embedded", help="'embedded', a folder or a hub name")
    parser.add_argument(
        "--device", default="auto", help="auto, npu, cuda, mps, cpu; npu:0,npu:1 spreads the layers"
    )
    parser.add_argument("--dtype", default="auto", help="auto, fp32, bf16 or fp16")
    add_place_flags(parser.add_argument_group("parts of LAVIS's layout that lie elsewhere"))


def add_place_flags(parser: argparse._ActionsContainer) -> None:
    """Where parts of LAVIS's layout lie that the folder does not hold or cannot tell apart."""
    parser.add_argument(
        "--vicuna",
        help="folder of Vicuna 7B or 13B, v1.1, or a hub name that is in the local cache",
    )
    parser.add_argument("--bert", help="folder of bert-base-uncased")
    parser.add_argument("--eva", help="eva_vit_g.pth")
    words = "instruct_blip_vicuna7b_trimmed.pth, or a whole or fine-tuned LAVIS checkpoint"
    add_flag(parser, "instruct_blip", help=words)


def place_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The parts' places as keyword arguments of :func:`instructblip.load`."""
    return {name: getattr(args, name) for name in ("vicuna", "bert", "eva", "instruct_blip")}


def add_sampling_flags(parser: argparse._ActionsContainer) -> None:
    """How the engine chooses tokens; what is not given is the model's own."""
    add_flag(parser, "max_new_tokens", type=int)
    parser.add_argument("--temperature", type=float, help="0 is greedy")
    add_flag(parser, "top_k", type=int)
    add_flag(parser, "top_p", type=float)
    add_flag(parser, "repetition_penalty", type=float)
    parser.add_argument("--seed", type=int)


def sampling(args: argparse.Namespace, default: SamplingParams) -> SamplingParams:
    """The model's own sampling with the given flags over it.

    Raises:
        BadParameter: a value out of its range.
    """
    given = {f.name: getattr(args, f.name, None) for f in fields(SamplingParams)}
    return replace(default, **{k: v for k, v in given.items() if v is not None}).checked()


def load_model(args: argparse.Namespace) -> InstructBlip:
    """The model that the flags name.

    Raises:
        CheckpointError, DeviceError: as :func:`instructblip.load`.
    """
    with no_collection():
        from instructblip.checkpoints import import_model_code, load

        import_model_code()
    return load(args.model, device=args.device, dtype=args.dtype, **place_flags(args))
