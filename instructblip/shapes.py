"""Models of real layer shapes with random weights: for speed, memory and tests without downloads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from instructblip.devices import Precision, choose_devices
from instructblip.int4 import Int4Linear, suit_int4
from instructblip.model import InstructBlip
from instructblip.properties import Properties, official_properties
from instructblip.spread import spread
from instructblip.weight_only import quantise_linears

WORDS = 30523  # bert-base-uncased and [DEC]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a published InstructBLIP-Vicuna."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    vocabulary: int = 32000
    vision_layers: int = 39
    context: int = 2048


# Source: config.json of lmsys/vicuna-7b-v1.1 and -13b-v1.1; lavis/models/eva_vit.py.
SHAPES = {
    "vicuna-7b": Shape(4096, 11008, 32, 32),
    "vicuna-13b": Shape(5120, 13824, 40, 40),
}


class PlainTokenizer:
    """Ids for random weights: a character is a token. What speed hangs on is the count."""

    start_id = end_id = 2
    fingerprint = "random"

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, text: str) -> list[int]:
        """One id a character."""
        return [3 + ord(c) % (self.size - 3) for c in text]

    def decode(self, ids: object) -> str:
        """A letter for each id."""
        return "".join(chr(97 + i % 26) for i in ids)  # type: ignore[attr-defined]

    def vocabulary(self) -> object:
        """What prompting needs."""
        from instructblip.conversation import Vocabulary

        return Vocabulary(self.encode, self.start_id, self.end_id, self.fingerprint)


class PlainWords:
    """The Q-Former's tokenizer for random weights: a character is a word."""

    truncation_side = "left"

    def __call__(self, text: str, truncation: bool, max_length: int) -> dict[str, list[int]]:
        return {"input_ids": [101, *(1000 + ord(c) for c in text), 102][:max_length]}


def random_model(
    name: str, *, layers: int | None = None, vision_layers: int | None = None,
    dtype: torch.dtype = torch.bfloat16, device: str = "cpu", seed: int = 0, int4: bool = False,
) -> InstructBlip:  # fmt: skip
    """Random weights in the shapes of ``name``, with fewer layers if asked (the ViT's too).

    Made tensor by tensor on ``device`` (several, as in ``npu:0,npu:1``, share the layers): nothing
    is held twice. The numbers of a tensor repeat after a million: drawing seven thousand million
    takes minutes, and no kernel's speed hangs on them. ``int4``: the language model's linears are
    quantised.
    """
    shape = SHAPES[name]
    config = _config(shape, layers or shape.layers, vision_layers or shape.vision_layers)
    from transformers import InstructBlipForConditionalGeneration

    with torch.device("meta"):
        weights = InstructBlipForConditionalGeneration(config)
    numbers = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed)) * 0.02
    precision, devices = Precision(dtype), choose_devices(device)
    place = spread(config, shape.context, precision, devices, name)
    for prefix, module in list(weights.named_modules()):
        for key, tensor in list(module.named_parameters(recurse=False)):
            full = f"{prefix}.{key}" if prefix else key
            made = torch.empty(tensor.shape, dtype=precision.of(full), device=place.of(full))
            fill(made, numbers, key)
            setattr(module, key, nn.Parameter(made, requires_grad=False))
        for key, tensor in list(module.named_buffers(recurse=False)):
            made = _buffer(key, tensor, shape, devices[0])
            module.register_buffer(key, made, persistent=False)
    if int4:
        quantise_linears(weights.language_model, Int4Linear)
        suit_int4(weights.language_model, devices[0])
    properties: Properties = official_properties(
        f"{name} (random weights)", query_tokens=32, image_size=224, context=shape.context
    )
    tokenizer = PlainTokenizer(shape.vocabulary)
    return InstructBlip(weights.eval(), tokenizer, PlainWords(), properties)


def fill(made: torch.Tensor, numbers: torch.Tensor, key: str) -> None:
    """Fill a tensor: norms with ones, biases with zeros, the rest with ``numbers`` again and again."""
    if made.ndim == 1:
        made.fill_(0 if key == "bias" else 1)
        return
    flat, block = made.view(-1), numbers.to(made.device, made.dtype)
    for at in range(0, flat.numel(), block.numel()):
        part = flat[at : at + block.numel()]
        part.copy_(block[: part.numel()])


def _buffer(key: str, like: torch.Tensor, shape: Shape, device: torch.device) -> torch.Tensor:
    if "inv_freq" in key:
        width = shape.width // shape.heads
        return 1.0 / 10000 ** (torch.arange(0, width, 2, device=device).float() / width)
    if like.dtype is torch.long:
        return torch.arange(like.numel(), device=device).view(like.shape)
    return torch.zeros(like.shape, dtype=like.dtype, device=device)


def _config(shape: Shape, layers: int, vision_layers: int) -> object:
    from transformers import (
        InstructBlipConfig,
        InstructBlipQFormerConfig,
        InstructBlipVisionConfig,
        LlamaConfig,
    )

    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(num_hidden_layers=vision_layers).to_dict(),
        qformer_config=InstructBlipQFormerConfig(vocab_size=WORDS).to_dict(),
        text_config=LlamaConfig(
            vocab_size=shape.vocabulary + 2, hidden_size=shape.width,
            intermediate_size=shape.feed_forward, num_hidden_layers=layers,
            num_attention_heads=shape.heads, max_position_embeddings=shape.context,
            bos_token_id=2, eos_token_id=2, pad_token_id=shape.vocabulary,
        ).to_dict(),
        num_query_tokens=32, image_token_index=shape.vocabulary + 1,
    )  # fmt: skip
