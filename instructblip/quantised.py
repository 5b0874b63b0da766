"""The kinds of quantised weights that a checkpoint can hold, by the word in its config.json."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from instructblip.errors import CheckpointError
from instructblip.int4 import Int4Linear, suit_int4
from instructblip.int8 import Int8Linear, suit_int8
from instructblip.weight_only import WeightOnlyLinear

# The key of config.json that says how the language model's linears are stored.
QUANTISED = "instructblip_quantised"
KINDS: dict[str, type[WeightOnlyLinear]] = {"int4": Int4Linear, "int8": Int8Linear}


def kind_of(config: Any) -> type[WeightOnlyLinear] | None:
    """The kind that a configuration is marked with, None for plain weights.

    Raises:
        CheckpointError: the word is not known.
    """
    word = getattr(config, QUANTISED, None)
    if word is not None and word not in KINDS:
        raise CheckpointError(
            f"config.json says {QUANTISED} = {word!r}, which this version does not know: it knows "
            f"{', '.join(KINDS)}. Update InstructBLIP chat, or convert the original weights again."
        )
    return None if word is None else KINDS[word]


def suit(root: nn.Module, device: torch.device) -> int:
    """Give quantised linears the form that a device runs. Returns how many there are."""
    return suit_int4(root, device) + suit_int8(root, device)
