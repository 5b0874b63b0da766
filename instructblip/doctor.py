"""``python -m instructblip doctor --model DIR``: whether a folder will work here, in plain words.

Each check is a function that returns what it found; the report goes on after a fault, so that one
run tells all that is known. No weights are read, except with ``--smoke``, which runs models on the
device (:mod:`instructblip.smoke`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from instructblip.arguments import add_model_flags, place_flags
from instructblip.ascend import explain
from instructblip.checkpoints.layout import Places, named_places
from instructblip.diagnosis import Finding, Machine, examine_ascend
from instructblip.errors import InstructBlipError

if TYPE_CHECKING:
    import torch

    from instructblip.checkpoints.source import Source


def examine(
    model: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    places: Places = Places(),  # noqa: B008
    machine: Machine | None = None,
) -> Iterator[Finding]:
    """Look at the NPU, the programs, the device, the folder and the room for it, in this order."""
    machine = machine or Machine()
    if device.startswith("npu") or (device == "auto" and machine.has_ascend()):
        yield from examine_ascend(machine)
    programs = _programs()
    yield programs
    if programs.well is False:  # the rest needs torch
        return
    devices, findings = _devices(device)
    yield from findings
    source, findings = _folder(model, places)
    yield from findings
    if source is not None and devices:
        yield from _room(source, devices, dtype)


def _programs() -> Finding:
    import platform

    try:
        import torch
        import transformers
    except (ImportError, OSError, RuntimeError) as error:  # torch-npu makes torch raise any of them
        words = " ".join(str(error).split())
        cure = explain(error) or "Install it anew with `bash launch.sh install`."
        return Finding(f"torch does not start ({words}). {cure}", False)
    return Finding(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )


def _devices(wish: str) -> tuple[tuple[torch.device, ...], list[Finding]]:
    from instructblip.devices import choose_devices

    try:
        devices = choose_devices(wish)
        return devices, [_device(place) for place in devices]
    except InstructBlipError as error:
        return (), [Finding(str(error), False)]
    except RuntimeError as error:  # the driver's own, in its words and in plain ones
        cure = explain(error) or "Restart the device or its driver, or use --device cpu."
        words = " ".join(str(error).split())
        return (), [Finding(f"The device does not start ({words}). {cure}", False)]


def _device(place: torch.device) -> Finding:
    from instructblip.devices import fp16_only

    name, free, whole = describe(place)
    room = f", {free / 1e9:.1f} of {whole / 1e9:.1f} GB free" if whole else ""
    if place.type == "npu" and fp16_only(place):
        name += ", no bf16: fp16 is used"
    return Finding(f"Device: {place}{f' ({name})' if name else ''}{room}.", True)


def describe(device: torch.device) -> tuple[str, int, int]:
    """Name of an accelerator, its free and its whole memory in bytes; "" and 0 for a CPU."""
    import torch

    module = getattr(torch, device.type, None)
    name = getattr(module, "get_device_name", None)
    memory = getattr(module, "mem_get_info", None)
    free, whole = memory(device) if memory and device.type != "cpu" else (0, 0)
    return str(name(device)) if name and device.type != "cpu" else "", int(free), int(whole)


def _folder(model: str | Path, places: Places) -> tuple[Source | None, list[Finding]]:
    from instructblip.checkpoints.source import open_source
    from instructblip.checkpoints.tokenizer import Tokenizer

    try:
        source = open_source(model, places)
        words = Tokenizer(source.tokenizer).size
        source.qformer_tokenizer()
    except BaseException as error:  # the libraries' Rust panics with a kind of its own
        return None, [_fault(model, error)]
    config = source.config
    return source, [
        Finding(f"{source.where} holds a model in the {source.layout} layout.", True),
        *(Finding(f"{what}: {file}") for what, file in source.parts.items()),
        *([Finding(f"Language model: {source.language_model}")] if source.language_model else []),
        *(Finding(f"Mind: {note}") for note in source.notes),
        Finding(
            f"{len(source.entries)} tensors, {source.parameters / 1e6:,.1f} million parameters: "
            f"all that the model needs, none too many. {words} words, context of "
            f"{config.text_config.max_position_embeddings} tokens.",
            True,
        ),
        Finding(f"Licence of the weights: {source.properties.licence or 'not stated'}."),
    ]


def _fault(model: str | Path, error: BaseException) -> Finding:
    """The finding of whatever went wrong; what ends the program goes on."""
    if isinstance(error, InstructBlipError):
        return Finding(str(error), False)
    if isinstance(error, OSError) and error.strerror:
        return Finding(f"{error.filename or model}: {error.strerror}.", False)
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise error
    words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return Finding(
        f"{model} holds something that no check foresaw ({words}). Fetch the folder again, whole; "
        "if it stays so, please report it with this line.",
        False,
    )


def _room(source: Source, devices: tuple[torch.device, ...], dtype: str) -> Iterator[Finding]:
    from instructblip.checkpoints.assemble import memory_needs
    from instructblip.checkpoints.loading import need_room, spread_source
    from instructblip.checkpoints.room import gigabytes
    from instructblip.devices import Precision, choose_dtype

    place = devices[0]
    try:
        precision = Precision(choose_dtype(dtype, place, source.parameters))
        slow = need_room(source, precision, place) if len(devices) == 1 else ""
        shares = spread_source(source, precision, devices).layers(source.config)
        whole, made = memory_needs(source.entries, precision)
    except BaseException as error:
        yield _fault(source.where, error)
        return
    name = str(precision.main).removeprefix("torch.")
    share = ", ".join(f"{count} on {device}" for device, count in shares.items())
    where = f" on {place}" if len(devices) == 1 else f"; layers: {share}"
    yield Finding(f"The weights take {gigabytes(whole)} in {name}{where}.", True)
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
    parser.add_argument(
        "--smoke", action="store_true",
        help="run models on the device too: agreement with the CPU, answers, speed; one page to paste",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if the model will work here, else 1."""
    well = True
    given = named_places(**place_flags(args))
    for finding in examine(args.model, device=args.device, dtype=args.dtype, places=given):
        print(printable(str(finding)), flush=True)
        well = well and finding.well is not False
    print("This model will work here." if well else "This model will not work here: see FAULT.")
    if args.smoke:  # whatever was found above: a check may be wrong, what runs is not
        well = _smoke(args.device, args.dtype) and well
    return 0 if well else 1


def printable(text: str) -> str:
    """A text that any terminal takes: what it cannot show, as names may hold, is written out."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _smoke(device: str, dtype: str) -> bool:
    """Print what running on the device shows. → whether it works as it should."""
    from instructblip.devices import choose_devices
    from instructblip.smoke import smoke

    well = True
    try:
        for place in choose_devices(device):
            for finding in smoke(place, dtype):
                print(printable(str(finding)), flush=True)
                well = well and finding.well is not False
    except InstructBlipError as error:  # no device, which the lines above have explained
        print(Finding(str(error), False))
        well = False
    print("The device works." if well else "The device does not work as it should: see FAULT.")
    return well
