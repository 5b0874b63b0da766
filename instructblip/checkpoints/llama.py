"""A folder of LLaMA's architecture: where its tensors lie, and whether they are all there.

Nothing but names, shapes and dtypes is taken from the weight files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from instructblip.checkpoints.files import is_mappable, read_tensors, shard_files
from instructblip.checkpoints.layout import read_json
from instructblip.checkpoints.room import need_memory
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

    ``config`` is config.json as it stands, ``llama`` transformers' LlamaConfig of it.
    """

    folder: Path
    config: dict[str, Any]
    llama: Any
    tensors: Mapping[str, Stored]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; the configuration's word where the embedding is absent."""
        stored = self.tensors.get(EMBEDDING)
        return stored.shape[0] if stored else int(self.llama.vocab_size)

    def unmappable(self) -> int:
        """Bytes of the largest file that has to be read whole; 0 when there is none."""
        files = {stored.file for stored in self.tensors.values()}
        return max((f.stat().st_size for f in files if not is_mappable(f)), default=0)


def find_folder(name: str | Path) -> Path:
    """A folder by its path, or by its hub name from the local cache; nothing is fetched.

    Raises:
        CheckpointError: neither is there.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(name), local_files_only=True))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{name} is no folder, and no model of that name is in the local hub cache. Check "
                f"the path, or fetch it first: hf download {name}",
                code="checkpoint_absent",
                name=str(name),
            ) from error
    raise CheckpointError(
        f"{folder} is no folder. Check the path.", code="checkpoint_absent", name=str(name)
    )


def read_weights(folder: Path) -> Weights:
    """A folder's configuration, and its tensors' names, shapes and dtypes.

    Raises:
        CheckpointError: no LLaMA in transformers' layout, or a file is absent or damaged.
    """
    if not (folder / "config.json").is_file() and any(folder.glob("consolidated.*.pth")):
        raise CheckpointError(
            f"{folder} is LLaMA as Meta packs it (consolidated.*.pth). Convert it to transformers' "
            "layout first, with transformers' convert_llama_weights_to_hf.py."
        )
    config = read_json(folder / "config.json")
    if config.get("model_type") != "llama":
        raise CheckpointError(
            f"{folder} holds a model of type {config.get('model_type')!r}, not LLaMA. Give the "
            f"folders of LLaMA and of Vicuna's delta."
        )
    llama = _llama_config(folder, config)
    tensors: dict[str, Stored] = {}
    for file in shard_files(folder):
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
    return Weights(folder, config, llama, tensors)


def _llama_config(folder: Path, config: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    try:
        return LlamaConfig.from_dict(deepcopy(config))
    except Exception as error:  # whatever values of unknown origin set off in the library
        raise _no_llama(folder, error) from error


def _no_llama(folder: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())
    return CheckpointError(
        f"{folder / 'config.json'} describes no LLaMA ({reason}). Fetch it again."
    )


def expected_tensors(weights: Weights, dtype: torch.dtype) -> dict[str, Stored]:
    """Names and shapes of transformers' LLaMA of the folder's configuration, in its order.

    Raises:
        CheckpointError: no model can be built by the configuration.
    """
    from transformers import LlamaForCausalLM

    try:
        with torch.device("meta"):
            model = LlamaForCausalLM(weights.llama)
    except Exception as error:  # whatever values of unknown origin set off in a constructor
        raise _no_llama(weights.folder, error) from error
    return {
        name: Stored(weights.folder, tuple(tensor.shape), dtype)
        for name, tensor in model.state_dict().items()
    }


def check_tensors(weights: Weights, expected: Mapping[str, Stored]) -> None:
    """Every tensor accounted for, with its shape, in a dtype that can be added.

    Raises:
        CheckpointError: names the first few that are not, and how many there are.
    """
    found = weights.tensors
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
