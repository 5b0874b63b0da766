"""Folder → model, processor and properties.

This first version reads the transformers layout (a local folder, as Salesforce/instructblip-vicuna-7b
on the hub has it) and the embedded model, which is a folder of the same layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.devices import choose_device, choose_dtype, set_threads
from instructblip.errors import CheckpointError
from instructblip.model import InstructBlip
from instructblip.properties import (
    FILE_NAME,
    Properties,
    official_properties,
    read_properties,
)

EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "embedded"
ARCHITECTURE = "InstructBlipForConditionalGeneration"


def import_model_code() -> None:
    """Import the model's code, which takes longer than reading a small model's weights."""
    from transformers import AutoTokenizer, InstructBlipForConditionalGeneration  # noqa: F401


def load(
    model: str | Path = "embedded", *, device: str = "auto", dtype: str = "auto"
) -> InstructBlip:
    """Load a model: ``embedded``, or a folder in the transformers layout.

    Args:
        model: ``embedded`` or a folder.
        device: auto, npu, cuda, mps or cpu, with an index if wished (``cuda:1``).
        dtype: auto, fp32, bf16 or fp16.

    Raises:
        CheckpointError: the folder or its weights do not fit; the message names what and why.
        DeviceError: the wished device is not here.
    """
    folder = EMBEDDED if str(model) == "embedded" else Path(model).expanduser()
    config = _read_config(folder)
    place = choose_device(device)
    weights = _load_weights(folder, config, place, dtype)
    set_threads(place, weights.num_parameters())
    properties = _properties(folder, config)
    if properties.query_tokens != weights.config.num_query_tokens:
        raise CheckpointError(
            f"{folder / FILE_NAME} says {properties.query_tokens} query tokens, the weights have "
            f"{weights.config.num_query_tokens}. Restore the file that belongs to the weights.",
        )
    return InstructBlip(
        weights, Tokenizer(folder / "tokenizer.model"), _qformer_tokenizer(folder), properties
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json. Give a folder in the transformers layout "
            "(as Salesforce/instructblip-vicuna-7b has it), or 'embedded'.",
            code="checkpoint_absent",
            name=str(folder),
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Fetch it again.") from error
    found = (config.get("architectures") or [config.get("model_type", "nothing")])[0]
    llm = (config.get("text_config") or {}).get("model_type")
    if found != ARCHITECTURE or llm != "llama":
        raise CheckpointError(
            f"{folder} holds {found} with the language model {llm!r}. Supported: {ARCHITECTURE} "
            "with a LLaMA (Vicuna) language model; FLAN-T5 and BLIP-2 are not.",
            code="checkpoint_kind",
            name=str(folder),
        )
    return dict(config)


def _load_weights(folder: Path, config: dict[str, Any], device: torch.device, dtype: str) -> Any:
    from transformers import InstructBlipForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    chosen = choose_dtype(dtype, device, size // 2)
    try:
        weights, report = InstructBlipForConditionalGeneration.from_pretrained(
            folder, dtype=chosen, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"The weights in {folder} cannot be loaded: {error}", name=str(folder)
        ) from error
    _check_report(folder, report)
    return weights.eval().requires_grad_(False).to(device)


def _check_report(folder: Path, report: dict[str, Any]) -> None:
    """Every tensor accounted for: LAVIS loads with strict=False and never says what is missing."""
    faults = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(n) for n in report.get(kind, ())]
        if names:
            shown = ", ".join(sorted(names)[:3])
            faults.append(f"{len(names)} {kind.replace('_keys', '')} ({shown}…)")
    if faults:
        raise CheckpointError(
            f"The weights in {folder} do not fit the model: {'; '.join(faults)}. "
            "A download may be cut short, or another model's files lie in the folder.",
            code="checkpoint_tensors",
            name=str(folder),
        )


def _properties(folder: Path, config: dict[str, Any]) -> Properties:
    path = folder / FILE_NAME
    if path.is_file():
        return read_properties(path)
    return official_properties(
        folder.name,
        query_tokens=int(config.get("num_query_tokens", 32)),
        image_size=int(config.get("vision_config", {}).get("image_size", 224)),
        context=int(config.get("text_config", {}).get("max_position_embeddings", 2048)),
    )


def _qformer_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    inner = folder / "qformer_tokenizer"
    try:
        return AutoTokenizer.from_pretrained(inner, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{inner} holds no BERT tokenizer ({error}). Fetch the folder again.", name=str(inner)
        ) from error
