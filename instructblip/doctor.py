"""``python -m instructblip doctor --model DIR``: whether a folder will work here, in plain words.

Each check is a function that returns what it found; the report goes on after a fault, so that one
run tells all that is known. No weights are read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instructblip.arguments import add_model_flags, place_flags
from instructblip.checkpoints.layout import Places, named_places
from instructblip.errors import InstructBlipError

if TYPE_CHECKING:
    import torch

    from instructblip.checkpoints.source import Source


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``well`` is None where nothing is judged."""

    text: str
    well: bool | None = None

    def __str__(self) -> str:
        return f"{ {None: '      ', True: 'ok    ', False: 'FAULT '}[self.well] }{self.text}"


def examine(
    model: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    places: Places = Places(),  # noqa: B008
) -> Iterator[Finding]:
    """Look at the programs, the device, the folder and the room for it, in this order."""
    yield _programs()
    place, finding = _device(device)
    yield finding
    source, findings = _folder(model, places)
    yield from findings
    if source is not None and place is not None:
        yield from _room(source, place, dtype)


def _programs() -> Finding:
    import platform

    import torch
    import transformers

    return Finding(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )


def _device(wish: str) -> tuple[torch.device | None, Finding]:
    from instructblip.devices import choose_device

    try:
        place = choose_device(wish)
    except InstructBlipError as error:
        return None, Finding(str(error), False)
    return place, Finding(f"Device: {place}.", True)


def _folder(model: str | Path, places: Places) -> tuple[Source | None, list[Finding]]:
    from instructblip.checkpoints.source import open_source
    from instructblip.checkpoints.tokenizer import Tokenizer

    try:
        source = open_source(model, places)
        words = Tokenizer(source.tokenizer).size
        source.qformer_tokenizer()
    except InstructBlipError as error:
        return None, [Finding(str(error), False)]
    except OSError as error:
        return None, [Finding(f"{error.filename or model}: {error.strerror}.", False)]
    config = source.config
    return source, [
        Finding(f"{source.where} holds a model in the {source.layout} layout.", True),
        *(Finding(f"{what}: {file}") for what, file in source.parts.items()),
        Finding(
            f"{len(source.entries)} tensors, {source.parameters / 1e6:,.1f} million parameters: "
            f"all that the model needs, none too many. {words} words, context of "
            f"{config.text_config.max_position_embeddings} tokens.",
            True,
        ),
        Finding(f"Licence of the weights: {source.properties.licence or 'not stated'}."),
    ]


def _room(source: Source, place: torch.device, dtype: str) -> Iterator[Finding]:
    from instructblip.checkpoints.assemble import memory_needs
    from instructblip.checkpoints.loading import need_room
    from instructblip.checkpoints.room import gigabytes
    from instructblip.devices import Precision, choose_dtype

    try:
        precision = Precision(choose_dtype(dtype, place, source.parameters))
        slow = need_room(source, precision, place)
    except InstructBlipError as error:
        yield Finding(str(error), False)
        return
    whole, made = memory_needs(source.entries, precision)
    name = str(precision.main).removeprefix("torch.")
    yield Finding(f"The weights take {gigabytes(whole)} in {name} on {place}.", True)
    if slow:
        yield Finding(slow)
    if place.type == "cpu" and made > whole // 2 and whole > 10**9:
        yield Finding(
            f"{gigabytes(made)} of them are converted at every start. Convert them once: "
            f"python -m instructblip convert --model {source.where} --out NEW --dtype {name}"
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``doctor``."""
    add_model_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if the model will work here, else 1."""
    well = True
    given = named_places(**place_flags(args))
    for finding in examine(args.model, device=args.device, dtype=args.dtype, places=given):
        print(finding, flush=True)
        well = well and finding.well is not False
    print("This model will work here." if well else "This model will not work here: see FAULT.")
    return 0 if well else 1
