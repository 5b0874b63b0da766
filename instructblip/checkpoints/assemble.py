"""Entries → the model: made without memory, filled from mapped files, every tensor accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instructblip.checkpoints.configs import built
from instructblip.checkpoints.files import Stored, read_tensors
from instructblip.devices import Precision
from instructblip.errors import CheckpointError
from instructblip.quantised import kind_of, suit
from instructblip.spread import Placement
from instructblip.weight_only import expect_linears

# Buffers that old files hold and the model makes itself.
IGNORED = ("rotary_emb.inv_freq", "embeddings.position_ids")
# How many names of a list are shown.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the model: its name and shape there, and how it comes out of a file.

    ``dtype`` is the stored one; ``anew``: the tensor is made, not a view of the mapped file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    make: Callable[[Mapping[str, Tensor]], Tensor]
    anew: bool = False

    def nbytes(self, dtype: torch.dtype) -> int:
        """Bytes of the tensor in a dtype."""
        return prod(self.shape) * dtype.itemsize


def copied(name: str, stored: Stored) -> Entry:
    """The entry of a tensor that is taken as it lies in its file."""

    def make(tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors[stored.name]

    return Entry(name, stored.shape, stored.dtype, stored.file, make)


def memory_needs(entries: Iterable[Entry], precision: Precision) -> tuple[int, int]:
    """Bytes of all tensors, and of those that a CPU cannot leave in the mapped files."""
    whole = made = 0
    for entry in entries:
        wished = precision.of(entry.name)
        size = entry.nbytes(wished)
        whole += size
        made += size if entry.anew or wished != entry.dtype else 0
    return whole, made


def empty_model(config: Any) -> Any:
    """The model on the meta device: shapes without memory; with quantised linears where it has them.

    Raises:
        CheckpointError: they are quantised in a way that is not known.
    """
    from transformers import InstructBlipForConditionalGeneration

    kind = kind_of(config)
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    if kind is not None:
        expect_linears(model.language_model, kind)
    return model


def assemble(config: Any, entries: Iterable[Entry], precision: Precision, place: Placement) -> Any:
    """The model with its weights where ``place`` says, in evaluation mode.

    Tensors that are stored in the wished dtype stay mapped on a CPU.
    """
    model = empty_model(config)
    state = {
        name: tensor.to(device=place.of(name), dtype=precision.of(name))
        for name, tensor in stream(entries)
    }
    model.load_state_dict(state, strict=False, assign=True)
    device = model.device
    _make_buffers(model, device)
    suit(model, device)
    if config.get_text_config().tie_word_embeddings:
        language = model.language_model
        language.lm_head.weight = language.model.embed_tokens.weight
    return model.eval().requires_grad_(False)


def stream(entries: Iterable[Entry]) -> Iterator[tuple[str, Tensor]]:
    """Each entry's tensor, one at a time; a file is open only while its own entries pass."""
    for file, group in groupby(entries, key=lambda entry: entry.file):
        tensors = read_tensors(file)
        for entry in group:
            yield entry.name, entry.make(tensors)
        del tensors


def _make_buffers(model: Any, device: torch.device) -> None:
    """Buffers are in no file, and a model that was made on the meta device has none."""
    embeddings, language = model.qformer.embeddings, model.language_model.model
    count = embeddings.position_ids.shape[-1]
    embeddings.position_ids = torch.arange(count, device=device).expand(1, -1)
    rotary = language.rotary_emb
    language.rotary_emb = type(rotary)(config=model.config.get_text_config()).to(device)


def check_entries(
    config: Any, entries: Iterable[Entry], unexpected: Iterable[str], where: str, cause: str = ""
) -> None:
    """Compare names and shapes with the model's, before anything is read.

    Raises:
        CheckpointError: missing, unexpected or misshapen tensors, or integers where the model has
            floats: the first few and the count. Or no model can be built by the configuration.
    """
    model = built(Path(where) / "config.json", lambda: empty_model(config).state_dict())
    wanted = {name: tuple(t.shape) for name, t in model.items()}
    stored = {entry.name: entry for entry in entries}
    given = {name: entry.shape for name, entry in stored.items()}
    absent = set(wanted) - set(given)
    if config.get_text_config().tie_word_embeddings:
        absent.discard("language_model.lm_head.weight")
    misshapen = [
        f"{name} {list(given[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    faults = [
        _several(sorted(absent), "missing"),
        _several(sorted({*unexpected, *(set(given) - set(wanted))}), "unexpected"),
        _several(misshapen, "misshapen"),
        _several(_not_floats(stored, model), "of integers, as of quantised weights"),
    ]
    if found := [fault for fault in faults if fault]:
        why = cause or (
            "A download may be cut short, or another model's files lie in the folder: fetch the "
            "files of one model, whole."
        )
        raise CheckpointError(
            f"The weights in {where} do not fit the model: {'; '.join(found)}. {why}",
            code="checkpoint_tensors",
            name=where,
        )


def _not_floats(stored: Mapping[str, Entry], model: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} {entry.dtype}"
        for name, entry in stored.items()
        if name in model and model[name].is_floating_point() and not entry.dtype.is_floating_point
    ]


def _several(names: list[str], kind: str) -> str:
    if not names:
        return ""
    more = ", …" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"
