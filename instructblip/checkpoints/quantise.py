"""Entries of a plain checkpoint → entries of the same with quantised linears in the language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from instructblip.checkpoints.assemble import Entry, empty_model
from instructblip.errors import CheckpointError
from instructblip.int4 import GROUP
from instructblip.quantised import QUANTISED, kind_of
from instructblip.weight_only import WeightOnlyLinear


def quantised_config(config: Any, how: str) -> Any:
    """The configuration, marked.

    Raises:
        CheckpointError: it is quantised already, or its sizes do not allow it.
    """
    if getattr(config, QUANTISED, None) is not None:
        raise CheckpointError("These weights are quantised already: convert the original ones.")
    if how == "int4" and config.get_text_config().hidden_size % GROUP:
        raise CheckpointError(
            f"4-bit weights come in groups of {GROUP}, and this language model is "
            f"{config.get_text_config().hidden_size} wide. Convert it without --quantize."
        )
    setattr(config, QUANTISED, how)
    return config


def quantised_entries(config: Any, entries: Iterable[Entry]) -> list[Entry]:
    """Two entries, integers and scales, for each linear that the configuration has quantised."""
    kind = kind_of(config)
    assert kind is not None
    wanted = set(empty_model(config).state_dict())
    made: list[Entry] = []
    for entry in entries:
        base = entry.name.removesuffix(".weight")
        swapped = f"{base}.{kind.STORED}" in wanted
        made += list(_pair(kind, base, entry)) if swapped else [entry]
    return made


def _pair(kind: type[WeightOnlyLinear], base: str, entry: Entry) -> Iterator[Entry]:
    outputs, inputs = entry.shape
    integers, scales = kind.shapes(outputs, inputs)
    last: list[tuple[Tensor, Tensor]] = []  # both come from one pass; they are written in turn

    def both(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if not last:
            last.append(kind.quantise(entry.make(tensors)))
        return last[0]

    def make_scales(tensors: Mapping[str, Tensor]) -> Tensor:
        return both(tensors)[1]

    def make_integers(tensors: Mapping[str, Tensor]) -> Tensor:
        made = both(tensors)[0]
        last.clear()
        return made

    yield replace(
        entry, name=f"{base}.scales", shape=scales, dtype=torch.float32, make=make_scales, anew=True
    )
    yield replace(
        entry, name=f"{base}.{kind.STORED}", shape=integers, dtype=kind.INTEGERS,
        make=make_integers, anew=True,
    )  # fmt: skip
