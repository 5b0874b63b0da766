"""``python -m instructblip vicuna``: LLaMA and Vicuna's delta → Vicuna.

Vicuna v1.1 was published as differences from LLaMA's weights. The sum is taken in fp16, as
fastchat/model/apply_delta.py (FastChat 0.2) takes it, and is equal to it bit for bit.

Both folders may be sharded or single, ``.bin`` or safetensors. Their files are mapped, the sum is
written by shards of ``SHARD_BYTES``, and the mappings are dropped after each shard: the peak is
one shard of sums and the pages of it in base and delta, about 3 × ``SHARD_BYTES``. Old ``.bin``
files that are no zip cannot be mapped; one of each side is held whole, after a look at the free
memory. The result is safetensors: mapped at load, no pickle, read by the transformers that LAVIS
used (4.33) and by today's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from instructblip.checkpoints.files import check_kind, is_mappable, read_tensors
from instructblip.checkpoints.hub import local_folder
from instructblip.checkpoints.lineage import check_family, check_words, tell
from instructblip.checkpoints.llama import (
    Stored,
    Weights,
    check_tensors,
    expected_tensors,
    read_weights,
)
from instructblip.checkpoints.room import folder_size, gigabytes, need_disk, need_memory
from instructblip.checkpoints.staging import partial_name, refuse_existing, staged_folder
from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.errors import CheckpointError

SHARD_BYTES = 2**30
V1_1 = "lmsys/vicuna-7b-delta-v1.1 (or -13b-)"
# What FastChat casts both sides to before it adds them.
DTYPE = torch.float16
_FINAL_NORM = "model.norm.weight"
# Vicuna v0 added [PAD] to LLaMA's 32000 words (FastChat 0.1, apply_delta.py).
_V0_ROWS = 32001
_SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
_NICKNAMES = {4096: "7B", 5120: "13B", 6656: "33B", 8192: "65B"}
# LLaMA 2 has LLaMA's sizes and vocabulary; of its configuration this differs: 1e-5, not 1e-6.
_EPS = "rms_norm_eps"
_KEPT = ("generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge that was checked and can begin. ``notes`` are doubts that do not forbid it."""

    base: Weights
    delta: Weights
    shards: Mapping[str, list[str]]
    kept: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the sum's tensors."""
        return sum(
            self.delta.tensors[n].elements * DTYPE.itemsize
            for names in self.shards.values()
            for n in names
        )


def merge_delta(
    base: str | Path, target: str | Path, delta: str | Path, *, shard_bytes: int = SHARD_BYTES
) -> Merge:
    """Write base + delta to ``target``, which appears whole or not at all.

    Args:
        base: LLaMA's folder in transformers' layout, or a hub name that is in the local cache.
        target: the folder to be made, in fp16 safetensors, with the delta's configuration and
            tokenizer (LLaMA's ``tokenizer.model`` where the delta has none).
        delta: the folder of Vicuna's delta v1.1, or a hub name that is in the local cache.
        shard_bytes: the largest file to write.

    Raises:
        BadRequest: the target exists.
        CheckpointError: the folders are incomplete, unreadable, or do not belong together; there
            is no room; a write failed.
    """
    place = Path(target).expanduser()
    refuse_existing(place)
    merge = plan_merge(
        local_folder(base, "--base-model-path"), local_folder(delta, "--delta-path"), shard_bytes
    )
    partial = partial_name(place)
    need_disk(
        partial, merge.size + sum(f.stat().st_size for f in merge.kept) + 2**20,
        f"Vicuna in {place}", reclaimed=folder_size(partial),
    )  # fmt: skip
    for note in merge.notes:
        print(f"note: {note}", file=sys.stderr)
    with staged_folder(place) as folder:
        write_merge(merge, folder)
    return merge


def plan_merge(base: Path, delta: Path, shard_bytes: int = SHARD_BYTES) -> Merge:
    """Check everything that can be known before the first byte is written.

    Raises:
        CheckpointError: as of :func:`merge_delta`.
    """
    changes, origin = read_weights(delta), read_weights(base)
    _refuse_v0(changes, origin)
    _check_same_size(changes, origin)
    verdicts = [_check_family(weights) for weights in (changes, origin)]
    expected = expected_tensors(changes, DTYPE)
    for weights in (changes, origin):
        check_tensors(weights, expected)
    kept = _kept_files(changes, origin)
    held = changes.unmappable() + origin.unmappable()
    size = sum(stored.elements * DTYPE.itemsize for stored in expected.values())
    need_memory(held + min(2 * shard_bytes, size), "Adding the delta")
    return Merge(
        origin, changes, _shards(expected, changes, origin, shard_bytes), kept,
        (*changes.notes, *origin.notes, *filter(None, verdicts), *_notes(changes, origin)),
    )  # fmt: skip


def _refuse_v0(delta: Weights, base: Weights) -> None:
    rows = delta.vocabulary
    if rows == _V0_ROWS or rows == base.llama.vocab_size + 1:
        raise CheckpointError(
            f"{delta.folder} is Vicuna's delta of version 0: its vocabulary has {rows} words, "
            f"[PAD] added to LLaMA's {rows - 1}. InstructBLIP was trained on version 1.1: give "
            f"{V1_1}."
        )


def _check_same_size(delta: Weights, base: Weights) -> None:
    """The two configurations; LLaMA 2 is told by its epsilon."""
    for key in (*_SIZES, "vocab_size"):
        ours, theirs = getattr(delta.llama, key), getattr(base.llama, key)
        if ours != theirs:
            raise CheckpointError(
                f"{base.folder} is not the base of {delta.folder}: {key} is {theirs}"
                f"{_nickname(base)}, the delta's {ours}{_nickname(delta)}. Give LLaMA (the first, "
                "not LLaMA 2) of the delta's size, with its own vocabulary."
            )
    ours, theirs = getattr(delta.llama, _EPS), getattr(base.llama, _EPS)
    if ours != theirs:
        raise CheckpointError(
            f"{base.folder} is not the base of {delta.folder}: {_EPS} is {theirs}, the delta's "
            f"{ours}. LLaMA 2 has 1e-05; Vicuna's deltas belong to the first LLaMA (1e-06)."
        )


def _check_family(weights: Weights) -> str:
    """Refuse what is known to be no LLaMA of the first kind; returns a doubt, or nothing."""
    verdict = tell(weights.folder, weights.config)
    then = f"Give the first LLaMA, and the delta of Vicuna v1.1: {V1_1}."
    check_family(weights.folder, verdict, then)
    note = verdict.note(fits="llama-1")
    return f"{weights.folder} {note}" if note else ""


def _nickname(weights: Weights) -> str:
    name = _NICKNAMES.get(weights.llama.hidden_size)
    return f" ({name})" if name else ""


def _kept_files(delta: Weights, base: Weights) -> tuple[Path, ...]:
    """The delta's tokenizer and generation files; LLaMA's tokenizer.model serves as well."""
    found = {f.name: f for pattern in _KEPT for f in sorted(delta.folder.glob(pattern))}
    kept = {name: file for name, file in found.items() if file.is_file()}
    kept.setdefault("tokenizer.model", base.folder / "tokenizer.model")
    for file in kept.values():
        check_kind(file)
    tokenizer = Tokenizer(kept["tokenizer.model"])
    check_words(kept["tokenizer.model"].parent, tokenizer)
    words = tokenizer.size
    if words > delta.vocabulary:
        raise CheckpointError(
            f"{kept['tokenizer.model']} has {words} words, the weights {delta.vocabulary}. Put "
            "the delta's own tokenizer.model there."
        )
    return tuple(kept.values())


def _shards(
    expected: Mapping[str, Stored], delta: Weights, base: Weights, shard_bytes: int
) -> Mapping[str, list[str]]:
    """File name → tensors. Tensors that share their two source files stay together."""
    from huggingface_hub import split_torch_state_dict_into_shards

    names = sorted(expected, key=lambda n: (delta.tensors[n].file, base.tensors[n].file))
    shapes = {n: torch.empty(expected[n].shape, dtype=DTYPE, device="meta") for n in names}
    split = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_bytes
    )
    return dict(split.filename_to_tensors)


def _notes(delta: Weights, base: Weights) -> Iterator[str]:
    rounded = sum(stored.dtype == torch.bfloat16 for stored in base.tensors.values())
    if rounded:
        yield (
            f"{base.folder} is stored in bfloat16, which has rounded LLaMA's weights; Vicuna comes "
            "out slightly off. A base in float16 is exact."
        )
    norms = [
        read_tensors(weights.tensors[_FINAL_NORM].file)[_FINAL_NORM].float().abs().mean().item()
        for weights in (delta, base)
    ]
    if min(norms) > 0.5 * max(norms):  # of Vicuna's delta it is near 0, LLaMA's is above 1
        yield (
            f"the final norm in {delta.folder} is about as large as the base's. Is it a delta, and "
            "not a whole model? Whole models (Vicuna v1.3, for one) are used as they are."
        )


def write_merge(merge: Merge, folder: Path) -> None:
    """Write the sum, its index, the configuration and the kept files into an empty folder.

    Raises:
        CheckpointError: a sum is not finite.
        OSError, SafetensorError: a write failed.
    """
    from tqdm import tqdm

    sides = _Side(merge.base), _Side(merge.delta)
    with tqdm(total=merge.size, desc="Adding the delta", unit="B", unit_scale=True) as bar:
        for file, names in merge.shards.items():
            sums: dict[str, Tensor] = {}
            for name in names:
                sums[name] = _sum(name, *sides)
                bar.update(merge.delta.tensors[name].elements * DTYPE.itemsize)
            # transformers 4.33 refuses safetensors that do not name their framework.
            save_file(sums, folder / file, metadata={"format": "pt"})
            for side in sides:
                side.unmap()
    if len(merge.shards) > 1:
        places = {n: file for file, names in merge.shards.items() for n in names}
        index = {"metadata": {"total_size": merge.size}, "weight_map": places}
        _write_json(folder / "model.safetensors.index.json", index)
    _write_json(folder / "config.json", _config(merge.delta.config))
    for source in merge.kept:
        shutil.copyfile(source, folder / source.name)


class _Side:
    """One summand's tensors, one file open at a time."""

    def __init__(self, weights: Weights) -> None:
        self._tensors = weights.tensors
        self._open: Path | None = None
        self._held: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """The stored tensor, mapped where its file can be."""
        file = self._tensors[name].file
        if file != self._open:
            self._held = {}  # before the next is read: an old file may be as large as memory
            self._held, self._open = read_tensors(file), file
        return self._held[name]

    def unmap(self) -> None:
        """Give the mapped pages back; a file that was read whole is kept, to be read but once."""
        if self._open is not None and is_mappable(self._open):
            self._held, self._open = {}, None


def _sum(name: str, base: _Side, delta: _Side) -> Tensor:
    total = base.tensor(name).to(DTYPE) + delta.tensor(name).to(DTYPE)
    if not torch.isfinite(total).all():
        raise CheckpointError(
            f"{name} is not finite after the sum: the base or the delta is damaged, or they do not "
            "belong together. Compare their checksums with the publisher's."
        )
    return total


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """The delta's configuration with the dtype of what was written."""
    dtype_keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    return config | dict.fromkeys(dtype_keys, str(DTYPE).removeprefix("torch."))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``vicuna``: FastChat's, its short forms and underscores as well."""
    for part, text in (
        ("base-model", "LLaMA's folder, in transformers' layout"),
        ("target-model", "the folder to be made"),
        ("delta", "the folder of vicuna-7b-delta-v1.1 (or 13b)"),
    ):
        short, underscored = part.removesuffix("-model"), part.replace("-", "_")
        names = (f"--{part}-path", f"--{underscored}_path", f"--{short}")
        parser.add_argument(*names, required=True, metavar="FOLDER", help=text)
    parser.add_argument(
        "--low-cpu-mem", "--low_cpu_mem", action="store_true",
        help="taken for FastChat's sake: the merge always goes shard by shard",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Merge, and say where the result is."""
    merge = merge_delta(args.base_model_path, args.target_model_path, args.delta_path)
    files = len(merge.shards)
    print(
        f"Vicuna is in {args.target_model_path}: {gigabytes(merge.size)} in {files} "
        f"{'file' if files == 1 else 'files'}, and {', '.join(sorted(f.name for f in merge.kept))}."
    )
    return 0
