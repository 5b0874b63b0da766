"""A folder of LLaMA's architecture: where its tensors lie, and whether they are all there.

Nothing but names, shapes and dtypes is taken from the weight files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from instructblip.checkpoints.configs import built, llama_values, model_json
from instructblip.checkpoints.files import is_mappable, read_tensors
from instructblip.checkpoints.kinds import refuse_tensors
from instructblip.checkpoints.room import need_memory
from instructblip.checkpoints.weights import weight_files
from instructblip.errors import CheckpointError

EMBEDDING = "model.embed_tokens.weight"
_IGNORED = "rotary_emb.inv_freq"  # a buffer that old versions of transformers saved
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor where it lies."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of LLaMA's architecture: its configuration and where its tensors lie.

    ``config`` is config.json as it stands, ``llama`` transformers' LlamaConfig of it; ``notes`` are
    what the user should know of its files.
    """

    folder: Path
    config: dict[str, Any]
    llama: Any
    tensors: Mapping[str, Stored]
    notes: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; the configuration's word where the embedding is absent."""
        stored = self.tensors.get(EMBEDDING)
        return stored.shape[0] if stored else int(self.llama.vocab_size)

    def unmappable(self) -> int:
        """Bytes of the largest file that has to be read whole; 0 when there is none."""
        files = {stored.file for stored in self.tensors.values()}
        return max((f.stat().st_size for f in files if not is_mappable(f)), default=0)


def read_weights(folder: Path) -> Weights:
    """A folder's configuration, and its tensors' names, shapes and dtypes.

    Raises:
        CheckpointError: no LLaMA in transformers' layout, or a file is absent or damaged.
    """
    config = model_json(folder)
    if config["model_type"] != "llama":
        raise CheckpointError(
            f"{folder} holds a model of type {config['model_type']!r}, not LLaMA. Give the "
            f"folders of LLaMA and of Vicuna's delta."
        )
    llama = _llama_config(folder / "config.json", config)
    files = weight_files(folder)
    tensors: dict[str, Stored] = {}
    for file in files.files:
        if not is_mappable(file):
            need_memory(file.stat().st_size, f"Reading {file}, which is no zip,")
        for name, tensor in read_tensors(file).items():
            if name.endswith(_IGNORED):
                continue
            if name in tensors:
                raise CheckpointError(
                    f"{name} is in {tensors[name].file} and in {file.name}. The shards are of "
                    "several downloads: fetch the folder again."
                )
            tensors[name] = Stored(file, tuple(tensor.shape), tensor.dtype)
    refuse_tensors(folder, tensors)
    return Weights(folder, config, llama, tensors, files.notes)


def _llama_config(path: Path, config: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    values = llama_values(path, config) | {"pad_token_id": None}
    return built(path, lambda: LlamaConfig(**values))


def expected_tensors(weights: Weights, dtype: torch.dtype) -> dict[str, Stored]:
    """Names and shapes of transformers' LLaMA of the folder's configuration, in its order.

    Raises:
        CheckpointError: no model can be built by the configuration.
    """
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = built(weights.folder / "config.json", lambda: LlamaForCausalLM(weights.llama))
    return {
        name: Stored(weights.folder, tuple(tensor.shape), dtype)
        for name, tensor in model.state_dict().items()
    }


def _refuse_double(weights: Weights) -> None:
    """LLaMA and Vicuna were published in fp16, and FastChat adds them in it."""
    double = [name for name, stored in weights.tensors.items() if stored.dtype == torch.float64]
    if double:
        raise CheckpointError(
            f"{weights.folder} is stored in float64 (fp64): {len(double)} tensors, {double[0]} for "
            "one. LLaMA and Vicuna's deltas are published in float16, so something has changed "
            "these. Give the original, or save it in float16 with transformers first: "
            "from_pretrained(FOLDER, dtype=torch.float16).save_pretrained(NEW).",
            code="checkpoint_kind",
            name=str(weights.folder),
        )


def check_tensors(weights: Weights, expected: Mapping[str, Stored]) -> None:
    """Every tensor accounted for, with its shape, in a dtype that can be added.

    Raises:
        CheckpointError: names the first few that are not, and how many there are.
    """
    found = weights.tensors
    _refuse_double(weights)
    misshapen = [
        f"{name} {list(found[name].shape)} instead of {list(stored.shape)}"
        for name, stored in expected.items()
        if name in found and found[name].shape != stored.shape
    ]
    faults = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "misshapen": misshapen,
        "not of floats (quantised weights cannot be added)": [
            f"{name} {stored.dtype}" for name, stored in found.items()
            if stored.dtype not in _FLOATS
        ],
    }  # fmt: skip
    told = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in faults.items()
        if names
    ]
    if told:
        raise CheckpointError(
            f"The tensors in {weights.folder} are not those of its config.json: {'; '.join(told)}. "
            "A download may be incomplete, or files of another model lie in the folder."
        )
