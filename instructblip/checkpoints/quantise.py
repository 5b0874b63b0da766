"""Entries of a plain checkpoint → entries of the same with 4-bit linears in the language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from instructblip.checkpoints.assemble import QUANTISED, Entry, empty_model
from instructblip.errors import CheckpointError
from instructblip.int4 import GROUP, int4_shapes, quantise


def quantised_config(config: Any, how: str) -> Any:
    """The configuration, marked.

    Raises:
        CheckpointError: it is quantised already, or its sizes do not allow it.
    """
    if getattr(config, QUANTISED, None) is not None:
        raise CheckpointError("These weights are quantised already: convert the original ones.")
    if config.get_text_config().hidden_size % GROUP:
        raise CheckpointError(
            f"4-bit weights come in groups of {GROUP}, and this language model is "
            f"{config.get_text_config().hidden_size} wide. Convert it without --quantize."
        )
    setattr(config, QUANTISED, how)
    return config


def quantised_entries(config: Any, entries: Iterable[Entry]) -> list[Entry]:
    """Two entries, packed weights and scales, for each linear that becomes one of 4 bits."""
    wanted = set(empty_model(config).state_dict())
    made: list[Entry] = []
    for entry in entries:
        base = entry.name.removesuffix(".weight")
        made += [entry] if f"{base}.packed" not in wanted else list(_pair(base, entry))
    return made


def _pair(base: str, entry: Entry) -> Iterator[Entry]:
    packed, scales = int4_shapes(*entry.shape)
    last: list[tuple[Tensor, Tensor]] = []  # both come from one pass; they are written in turn

    def both(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if not last:
            last.append(quantise(entry.make(tensors)))
        return last[0]

    def make_scales(tensors: Mapping[str, Tensor]) -> Tensor:
        return both(tensors)[1]

    def make_packed(tensors: Mapping[str, Tensor]) -> Tensor:
        made = both(tensors)[0]
        last.clear()
        return made

    yield replace(
        entry, name=f"{base}.scales", shape=scales, dtype=torch.float32, make=make_scales, anew=True
    )
    yield replace(
        entry, name=f"{base}.packed", shape=packed, dtype=torch.uint8, make=make_packed, anew=True
    )
