"""Cases of 8-bit weights on the simulated NPU, and of the same folder on the CPU."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from instructblip import kernels
from instructblip.checkpoints.convert import convert
from instructblip.engine import scheduler
from instructblip.engine.sampling import Sampler, greedy, restrain
from instructblip.int8 import Int8Linear
from tests.npu import chats, compute
from tests.tiny import make_checkpoint

OPERATOR = "npu_weight_quant_batchmatmul"


@cache
def folder() -> Path:
    """A tiny checkpoint with 8-bit weights."""
    whole = Path(tempfile.mkdtemp()) / "whole"
    make_checkpoint(whole, properties=dict(chats.PROPERTIES), width=128)
    target = whole.with_name("int8")
    convert(whole, target, dtype="fp16", quantize="int8")
    return target


def three_turns(layout: str, dtype: str) -> dict[str, Any]:
    """A chat in a layout on both devices, the NPU's kinds of linears, and if its operator ran.

    Also the CPU's two best choices for each token, and by how much the first one led.
    """
    found = kinds(dtype)  # loads a first time, which tries the operator
    compute.used.clear()
    best: list[tuple[list[int], float]] = []

    def noted(logits: Tensor, samplers: dict[int, Sampler]) -> dict[int, int]:
        rows = logits[list(samplers)].float().cpu()
        restrain(rows, list(samplers.values()))
        for (first, second), ids in zip(*(t.tolist() for t in rows.topk(2)), strict=True):
            best.append((ids, first - second))
        return greedy(logits, samplers)

    with patch.object(chats, "folder", folder), patch.object(scheduler, "greedy", noted):
        answers: dict[str, Any] = chats.three_turns(layout, dtype)
    count = sum(len(ids) for ids in answers["cpu"])
    answers["best"] = best[-count:]  # the CPU answers last
    return answers | {"ran": f"npu::{OPERATOR}" in compute.used, "kinds": found}


def refused(dtype: str) -> dict[str, Any]:
    """The same on a chip without the operator."""

    def absent(*_: object) -> None:
        raise RuntimeError("aclnnWeightQuantBatchMatmulV2 not in libopapi.so")

    try:
        with patch.dict(kernels._OPERATORS, int8_matmul=absent):
            _forget()
            return three_turns("append", dtype)
    finally:
        _forget()


def _forget() -> None:
    kernels._tried.cache_clear()
    kernels._fused.cache_clear()


def kinds(dtype: str) -> list[str]:
    """The classes of the language model's linears on the NPU."""
    with patch.object(chats, "folder", folder):
        root = chats.load("npu", dtype).weights.language_model
    return sorted(
        {type(m).__name__ for m in root.modules() if isinstance(m, nn.Linear | Int8Linear)}
    )


def merged() -> dict[str, Any]:
    """A layer's merged linears: their classes, sizes, and whether the parts are views."""
    with patch.object(chats, "folder", folder):
        layer = chats.load("npu", "fp16").weights.language_model.model.layers[0]
    attention, mlp, made = layer.self_attn, layer.mlp, {}
    for name, whole, parts in (
        ("qkv", attention.qkv, (attention.q_proj, attention.k_proj, attention.v_proj)),
        ("gate_up", mlp.gate_up, (mlp.gate_proj, mlp.up_proj)),
    ):
        places = {
            getattr(m, key).untyped_storage().data_ptr()
            for key in ("levels", "scales") for m in (whole, *parts)
        }  # fmt: skip
        made[name] = [type(whole).__name__, whole.out_features, len(places)]
    return made


def difference(dtype: str) -> float:
    """Largest difference of the operator on npu from its reference on the CPU."""
    generator, wished = torch.Generator().manual_seed(0), {"fp16": torch.float16}
    plain = nn.Linear(96, 40, bias=False)
    plain.weight = nn.Parameter(torch.randn(40, 96, generator=generator), requires_grad=False)
    linear = Int8Linear.of(plain.to(wished.get(dtype, torch.bfloat16)))
    x = torch.randn(5, 96, generator=generator).to(linear.scales.dtype)
    want = x.float() @ (linear.levels * linear.scales[:, None].float()).T
    return float((linear.to("npu")(x.to("npu")).cpu().float() - want).abs().max())
