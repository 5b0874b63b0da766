"""Load a checkpoint: what lies there, whether it fits, whether there is room, then the weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import torch
from torch import nn

from instructblip.checkpoints.assemble import assemble, memory_needs
from instructblip.checkpoints.layout import named_places
from instructblip.checkpoints.room import free_memory, gigabytes, need_memory
from instructblip.checkpoints.source import Source, open_source
from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.devices import Precision, choose_devices, choose_dtype, set_threads
from instructblip.devices import free_memory as free_device_memory
from instructblip.errors import OutOfMemory
from instructblip.fused import pack_linears, plain_bytes, widen_linears
from instructblip.model import InstructBlip
from instructblip.spread import Placement, spread

# Bytes that stay free beside the packed weights: keys and values, activations, the rest.
PREPACK_MARGIN = 3 * 2**30
log = logging.getLogger(__name__)


def import_model_code() -> None:
    """Import the model's code, which takes longer than reading a small model's weights."""
    from transformers import AutoTokenizer, InstructBlipForConditionalGeneration  # noqa: F401


def load(
    model: str | Path = "embedded",
    *,
    device: str = "auto",
    dtype: str = "auto",
    vicuna: str | Path | None = None,
    bert: str | Path | None = None,
    eva: str | Path | None = None,
    instruct_blip: str | Path | None = None,
    prepack: bool | None = None,
) -> InstructBlip:
    """Load a model: ``embedded``, a folder in transformers' or LAVIS's layout, or a hub name.

    Args:
        model: ``embedded``, a folder, or a hub name (from the local cache, else fetched).
        device: auto, npu, cuda, mps or cpu, with an index if wished (``cuda:1``); ``npu:0,npu:1``
            spreads the model's layers over several.
        dtype: auto, fp32, bf16 or fp16 (or torch's names), of the ViT and the language model; the
            Q-Former and the projection are in fp32, as in LAVIS.
        vicuna: the language model's folder, where LAVIS's layout leaves it open.
        bert: the folder of bert-base-uncased.
        eva: eva_vit_g.pth.
        instruct_blip: instruct_blip_vicuna7b_trimmed.pth, or a whole or fine-tuned checkpoint.
        prepack: on a CPU in half precision, lay the language model's weights out for the
            processor: faster decoding for a second copy of them in memory and about a second a
            gigabyte at the start. None: where the memory allows.

    Raises:
        CheckpointError: the folder or its weights do not fit; the message names what and why.
        DeviceError: a wished device is not here, or has too little memory.
    """
    found = open_source(model, named_places(vicuna, bert, eva, instruct_blip))
    for note in found.notes:
        log.warning(note)
    devices = choose_devices(device)
    if devices[0].type != "cpu":
        return _load(found, devices, dtype, prepack)
    made = _in_thread_of_its_own(lambda: _load(found, devices, dtype, prepack))
    set_threads(devices[0], found.parameters)
    return made


def _in_thread_of_its_own(work: Callable[[], InstructBlip]) -> InstructBlip:
    """Run ``work`` in a thread that ends with it, and OpenMP's team of threads with that.

    A team left behind halves the speed of the engine's own: OpenMP lets threads that wait for each
    other spin only while there are no more of them than processors.
    """
    made: Future[InstructBlip] = Future()

    def run() -> None:
        try:
            made.set_result(work())
        except BaseException as error:
            made.set_exception(error)

    thread = Thread(target=run, name="loading", daemon=True)  # Ctrl-C need not wait for it
    thread.start()
    thread.join()
    return made.result()


def _load(
    source: Source, devices: Sequence[torch.device], dtype: str, prepack: bool | None
) -> InstructBlip:
    place = devices[0]
    precision = Precision(choose_dtype(dtype, place, source.parameters))
    # The tokenizers are small and may be wrong, so they come before the weights.
    tokenizer, qformer_tokenizer = Tokenizer(source.tokenizer), source.qformer_tokenizer()
    if len(devices) == 1 and (slow := need_room(source, precision, place)):
        log.warning(slow)
    parts = spread_source(source, precision, devices)
    weights = assemble(source.config, source.entries, precision, parts)
    if place.type == "cpu" and may_prepack(weights.language_model, prepack):
        pack_linears(weights.language_model, precision.main)
    if place.type == "cpu":
        widen_linears(weights)
    if source.properties.ln_vision_eps is not None:
        weights.vision_model.post_layernorm.eps = source.properties.ln_vision_eps
    return InstructBlip(weights, tokenizer, qformer_tokenizer, source.properties)


def spread_source(
    source: Source, precision: Precision, devices: Sequence[torch.device]
) -> Placement:
    """Where the parts of a checkpoint go.

    Raises:
        OutOfMemory: several devices have less memory together than it takes.
    """
    context, where = source.properties.context_length, str(source.where)
    return spread(source.config, context, precision, devices, where)


def may_prepack(language_model: nn.Module, wish: bool | None) -> bool:
    """Whether linears are to be packed: as wished, else where a second copy leaves room enough."""
    if wish is not None:
        return wish
    return plain_bytes(language_model) + PREPACK_MARGIN < free_memory()


def need_room(source: Source, precision: Precision, device: torch.device) -> str:
    """Compare the memory that the weights want with what is free.

    On a CPU, weights that are stored in the wished dtype stay in the mapped files; where these do
    not fit into memory either, each answer reads them from the disk, which the returned sentence
    says; it is empty where all is well.

    Raises:
        CheckpointError: this machine has less memory.
        OutOfMemory: the device has less memory.
    """
    whole, made = memory_needs(source.entries, precision)
    name = str(precision.main).removeprefix("torch.")
    free = free_device_memory(device)
    if free is not None and whole > free:
        raise OutOfMemory(
            f"The weights of {source.where} take {gigabytes(whole)} in {name}, {device} has "
            f"{gigabytes(free)} free. Stop other programs there, or use --dtype fp16 or another "
            "--device.",
        )
    if device.type == "cpu":
        need_memory(made, f"Loading {source.where} in {name}")
        if whole > free_memory():
            return (
                f"The weights take {gigabytes(whole)}, {gigabytes(free_memory())} of memory are "
                "free: every answer will read them from the disk."
            )
    return ""
