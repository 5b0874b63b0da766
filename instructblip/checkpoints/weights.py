"""Which files of a folder are its weights: transformers' order, and what lies beside unread.

A folder that was saved whole and sharded, or in two formats, holds several sets. Reading another
one than transformers does gives another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.checkpoints.kinds import LORA, NAMES, describe
from instructblip.checkpoints.values import peek_json, read_json, wrong_value
from instructblip.errors import CheckpointError

_WEIGHTS = re.compile(r"(model|pytorch_model)\b.*\.(safetensors|bin|index(\.[\w-]+)?\.json)")
_VARIANT = re.compile(
    r"(?:model\.(?P<a>[\w-]+)\.safetensors|model\.safetensors\.index\.(?P<b>[\w-]+)\.json"
    r"|pytorch_model\.(?P<c>[\w-]+)\.bin|pytorch_model\.bin\.index\.(?P<d>[\w-]+)\.json)"
)
_SHARD = re.compile(r"-\d+-of-\d+")
_KEY, _ENDS = "transformers_weights", (".safetensors", ".safetensors.index.json")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files to read, and what the user should know of those that are not read."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def weight_files(folder: Path) -> WeightFiles:
    """The weight files of a folder in transformers' layout.

    What config.json names as ``transformers_weights`` is read, else the first of
    :data:`~instructblip.checkpoints.kinds.NAMES` that is there; an index names its shards. Where
    none is there, the only variant (``model.fp16.safetensors``) is.

    Raises:
        CheckpointError: no weights, several variants, an index that is none, or an absent shard.
    """
    variant = ""
    chosen = _named(folder) or _first(folder, NAMES)
    if chosen is None:
        variant = _sole_variant(folder)
        chosen = _first(folder, [_with_variant(name, variant) for name in NAMES])
    assert chosen is not None  # a variant's name was taken from a file
    others = sorted(f.name for f in _all_weights(folder) if f != chosen)
    files = _indexed(chosen) if chosen.suffix == ".json" else (chosen,)
    notes = [f"{folder}: the variant {variant} is read, which is all there is."] if variant else []
    if (folder / LORA).is_file():
        notes.append(f"{folder} holds a LoRA adapter ({LORA}) too. It is not applied.")
    read = {file.name for file in files}
    if unread := [name for name in others if name not in read]:
        notes.append(
            f"{folder} holds several sets of weights: {chosen.name} is read, as transformers does, "
            f"and not {_few(unread)}. Delete what is old."
        )
    return WeightFiles(files, tuple(notes))


def _named(folder: Path) -> Path | None:
    """The file that config.json names: the key goes before all names, in transformers too."""
    config = folder / "config.json"
    name = peek_json(config).get(_KEY)
    if name is None:
        return None
    if not (_is_plain(name) and name.endswith(_ENDS) and (folder / name).is_file()):
        raise wrong_value(config, _KEY, name, f"a file beside it that ends with {_ENDS[0]}")
    return folder / name


def _is_plain(name: Any) -> bool:
    """Whether this is the name of a file beside, and not a path that leads elsewhere."""
    return (
        isinstance(name, str) and name.isprintable() and name not in ("", "..")
        and Path(name).name == name
    )  # fmt: skip


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _all_weights(folder: Path) -> list[Path]:
    try:
        return [f for f in folder.iterdir() if _WEIGHTS.fullmatch(f.name) and f.is_file()]
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error.strerror}). Check its permissions.", name=str(folder)
        ) from error


def _with_variant(name: str, variant: str) -> str:
    stem, _, end = name.rpartition(".")
    return f"{stem}.{variant}.{end}"


def _sole_variant(folder: Path) -> str:
    found = (_VARIANT.fullmatch(f.name) for f in _all_weights(folder))
    variants = sorted({word for match in found if match for word in match.groups() if word})
    variants = [v for v in variants if not _SHARD.search(v)]
    if len(variants) == 1:
        return variants[0]
    if variants:
        raise CheckpointError(
            f"{folder} holds its weights in {len(variants)} variants ({', '.join(variants)}) and "
            f"none without a name. Keep one, or rename its files: {NAMES[0]} or {NAMES[1]}.",
            code="checkpoint_ambiguous",
            name=str(folder),
        )
    raise no_weights(folder)


def no_weights(folder: Path) -> CheckpointError:
    """The error of a folder without weights: what it is instead, where that can be told."""
    if kind := describe(folder):
        return CheckpointError(f"{folder} {kind}", code="checkpoint_kind", name=str(folder))
    return CheckpointError(
        f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin, single or "
        "with an index. Fetch the folder again, whole.",
        code="checkpoint_absent",
        name=str(folder),
    )


def _indexed(index: Path) -> tuple[Path, ...]:
    try:
        places = read_json(index).get("weight_map")
    except CheckpointError as error:
        raise _no_index(index, str(error)) from error
    names = _shard_names(index, places)
    files = tuple(index.parent / name for name in names)
    absent = [file.name for file in files if not file.is_file()]
    if not absent:
        return files
    other = _first(index.parent, [name for name in NAMES if name != index.name])
    more = f" Or {index.name} is old: without it {other.name} is read." if other else ""
    raise CheckpointError(
        f"{index.parent} lacks {len(absent)} of {len(files)} shards that {index.name} names "
        f"({_few(absent)}). The download is not complete: fetch them.{more}",
        code="checkpoint_absent",
        name=str(index.parent),
    )


def _shard_names(index: Path, places: Any) -> list[str]:
    """The files that an index names; they lie beside it, whatever it says."""
    if not isinstance(places, dict) or not places:
        raise _no_index(index, "its weight_map is no object, or empty")
    for tensor, name in places.items():
        if not _is_plain(name):
            raise _no_index(index, f"{tensor!r} is said to lie in {name!r:.80}")
    return sorted(set(places.values()))


def _no_index(index: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{index} is no index of shards ({why}). Fetch it again.",
        code="checkpoint_file",
        name=str(index),
    )


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
