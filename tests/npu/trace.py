"""Trace mode: what a forward at real size launches on the NPU, with nothing computed.

Weights are addresses that nobody writes to, so seven thousand million of them cost nothing.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections import Counter
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

import instructblip.model
from instructblip import fused, kernels, shapes
from instructblip.attention import RaggedAttention, Span
from instructblip.devices import choose_device
from instructblip.engine.base import SamplingParams
from instructblip.engine.kv_cache import Arena, CacheShape
from instructblip.engine.local import _arena
from instructblip.engine.sampling import Sampler, finite, greedy
from instructblip.engine.steps import StaticStep
from instructblip.int8 import Int8Linear
from instructblip.model import ImageFeatures, InstructBlip

PROMPT = 160  # positions of the prefill: image tokens and a question
CHUNK = 1024  # positions of the longest prefill chunk
SIZE = "SIMULATED_NPU_MEMORY"


def launches() -> Counter[str]:
    """Operators launched since the last call."""
    library = ctypes.CDLL("libopapi.so")
    text = ctypes.create_string_buffer(1 << 16)
    library.simulation_launches(text, len(text))
    library.simulation_reset()
    pairs = (line.split() for line in text.value.decode().splitlines())
    return Counter({name: int(count) for name, count in pairs})


def old_style() -> dict[str, int]:
    """Operators that would be compiled at run time (aclop), so far: each takes seconds once."""
    text = ctypes.create_string_buffer(1 << 16)
    ctypes.CDLL("libacl_op_compiler.so").simulation_compiled(text, len(text))
    return dict(Counter(text.value.decode().split()))


@cache
def model(name: str = "vicuna-7b", device: str = "npu") -> InstructBlip:
    """A model of real shapes on the NPU, its numbers never written."""
    return _model(name, device)


@cache
def plain_model() -> InstructBlip:
    """The same as transformers makes it; made by :func:`before`."""
    return _model("vicuna-7b", "npu")


def _model(name: str, device: str) -> InstructBlip:
    choose_device("npu")  # sets torch_npu up as a start does
    # A trace has no results to compare with a reference: every fused operator counts as tried.
    kernels._tried = lambda name, device: True
    plain, shapes.fill = shapes.fill, lambda made, numbers, key: None
    try:
        return shapes.random_model(name, dtype=torch.float16, device=device)
    finally:
        shapes.fill = plain


@cache
def arena(rows: int = 8) -> Arena:
    """Keys and values of eight conversations."""
    made = model()
    shape = CacheShape.of(made.text_config)
    return Arena(shape, rows, made.properties.context_length, made.dtype, made.device)


def decode(rows: int, length: int = 512) -> dict[str, int]:
    """One decode step of ``rows`` conversations: mask and cache write included, no sampling."""
    step = StaticStep(model(), arena())
    state = torch.zeros(2, rows, dtype=torch.long, device="npu")
    with torch.inference_mode():
        launches()
        step.forward(state, length)
    return dict(launches())


def prefill(positions: int = PROMPT) -> dict[str, int]:
    """A prefill chunk of one conversation."""
    made, embeds = model(), _empty(1, PROMPT, model().text_config.hidden_size)
    with torch.inference_mode():
        where = torch.arange(positions, device="npu")[None]
        launches()
        made.run(embeds, where, RaggedAttention(arena(), [Span(0, 0, positions)]))
    return dict(launches())


def sampling(rows: int) -> dict[str, int]:
    """The next tokens of ``rows`` answers with the official weights' repetition penalty."""
    made = model()
    params = SamplingParams(repetition_penalty=1.5, min_new_tokens=1)
    logits = torch.empty(rows, made.text_config.vocab_size, device="npu")
    launches()
    finite(logits)
    greedy(logits, {row: Sampler(params, 2) for row in range(rows)})
    return dict(launches())


def vit() -> dict[str, int]:
    """One picture through the ViT."""
    made = model()
    pixels = _empty(1, 3, made.properties.image_size, made.properties.image_size)
    with torch.inference_mode():
        launches()
        made.weights.vision_model(pixels)
    return dict(launches())


def query() -> dict[str, int]:
    """One instruction through the Q-Former and the projection."""
    features = ImageFeatures(_empty(1, 257, 1408))
    launches()
    model().query(features, "what is in the picture")
    return dict(launches())


def eight_bits(dtype: str, rows: int) -> dict[str, int]:
    """Gate and up of a layer of 8-bit weights, merged."""
    wished = getattr(torch, dtype)
    levels = torch.empty(11008, 4096, dtype=torch.int8, device="npu")
    parts = [Int8Linear(levels, torch.empty(11008, dtype=wished, device="npu"), 11008)] * 2
    merged, x = Int8Linear.merged(parts), torch.empty(1, rows, 4096, dtype=wished, device="npu")
    launches()
    assert merged(x).shape == (1, rows, 2 * 11008)
    return dict(launches())


def before(phase: str, *args: int) -> dict[str, int]:
    """What a function above launches with transformers' own layers and torch's own attention."""

    def off(*_: object) -> bool:
        return False

    with (
        patch.object(instructblip.model, "fuse_for", off),
        patch.object(fused, "_fused_attention", off),
        patch.object(fused, "_written_out", off),
        patch.object(kernels, "FUSED", ()),
        patch.dict(globals(), model=plain_model),
    ):
        launched: dict[str, int] = globals()[phase](*args)
    return launched


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float16, device="npu")


def memory() -> dict[str, Any]:
    """Bytes of weights, of the arena, and the allocator's peak so far."""
    weights = sum(p.numel() * p.element_size() for p in model().weights.parameters())
    return {
        "weights": weights, "arena": arena().nbytes(), "peak": torch.npu.max_memory_allocated(),
        "total": torch.npu.mem_get_info()[1], "old_style": old_style(),
    }  # fmt: skip


def spread(memory: int) -> dict[str, Any]:
    """InstructBLIP-Vicuna-13B over two devices of so many bytes: what lies where, and the peaks.

    A picture, a long prefill and a step of all conversations run. The other model is taken off.
    """
    for held in (model, plain_model, arena):
        held.cache_clear()
    gc.collect()
    torch.npu.init()
    torch.npu.empty_cache()
    for n in range(2):
        torch.npu.reset_peak_memory_stats(n)
    os.environ[SIZE] = str(memory)  # the simulated device reads its size each time
    try:
        return _spread()
    finally:
        os.environ.pop(SIZE)


def _spread() -> dict[str, Any]:
    made = model("vicuna-13b", "npu:0,npu:1")
    kept = _arena(made, 16, None)
    rows, where = len(kept.slots), torch.arange(CHUNK, device="npu")[None]
    embeds = _empty(1, CHUNK, made.text_config.hidden_size)
    with torch.inference_mode():
        made.encode_image(Image.new("RGB", (224, 224)))
        hidden = made.run(embeds, where, RaggedAttention(kept, [Span(0, 0, CHUNK)]))
        state = torch.zeros(2, rows, dtype=torch.long, device="npu")
        launches()
        logits = StaticStep(made, kept).forward(state, kept.length)
    library = ctypes.CDLL("libopapi.so")
    tensors = (*made.weights.parameters(), *kept.keys, *kept.values)
    return {
        "layers": [str(device) for device in made.layer_devices], "conversations": rows,
        "held": [sum(t.nbytes for t in tensors if t.device.index == n) for n in (0, 1)],
        "peaks": [torch.npu.max_memory_allocated(n) for n in (0, 1)],
        "hidden": str(hidden.device), "logits": str(logits.device),
        "launched": [library.simulation_launched_on(n) for n in (0, 1)],
    }  # fmt: skip
