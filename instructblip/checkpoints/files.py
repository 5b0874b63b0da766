"""Files of weights: what a file really is, and its tensors, mapped rather than read.

Nothing in a weight file is ever run: ``.pth`` and ``.bin`` are read with ``weights_only=True``,
which builds tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from instructblip.checkpoints.room import need_memory
from instructblip.errors import CheckpointError

SAFETENSORS = ".safetensors"
_LFS = b"version https://git-lfs"
_HTML = (b"<!doctype", b"<html", b"<?xml", b"<head")
# Names under which programs that train keep the weights beside the optimizer's state.
_WRAPPERS = ("model", "state_dict", "module")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies, under which name there, its shape and dtype."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def index(files: Iterable[Path]) -> dict[str, Stored]:
    """Names, shapes and dtypes of several files' tensors; a later file's name wins."""
    return {
        name: Stored(file, name, tuple(tensor.shape), tensor.dtype)
        for file in files
        for name, tensor in read_tensors(file).items()
    }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name, on the CPU, in the stored dtype.

    Safetensors and zip files (torch since 1.6) are mapped: no memory is taken until a tensor is
    used. A wrapper as LAVIS saves it, ``{"model": …}``, is opened.

    Raises:
        CheckpointError: not a weight file, cut short, or a pickle that carries code.
    """
    check_kind(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    return _unwrap(path, _read_pickle(path))


def is_mappable(path: Path) -> bool:
    """Whether the file's tensors can be mapped; an old ``.pth`` that is no zip is read whole."""
    return path.suffix == SAFETENSORS or zipfile.is_zipfile(path)


def check_kind(path: Path) -> None:
    """Refuse what only carries a weight file's name.

    Raises:
        CheckpointError: absent, empty, a Git LFS pointer or a web page.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})", "Check the path") from error
    if not start:
        raise _bad(path, "is empty", "Fetch it again")
    if start.startswith(_LFS):
        raise _bad(
            path, "is a Git LFS pointer, not the weights", "Run `git lfs pull` in its folder"
        )
    if start.startswith(_HTML):
        raise _bad(
            path, "is a web page, not weights", "The download was refused or redirected: fetch it"
            " again, logged in if the site asks for it",
        )  # fmt: skip


def shard_files(folder: Path) -> list[Path]:
    """The weight files of a folder in the transformers layout, sharded or single.

    Safetensors go before ``.bin``, as transformers has it; an index names its shards.

    Raises:
        CheckpointError: no weights, an index that is no JSON, or a shard that is absent.
    """
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            return _indexed(index)
        if (folder / stem).is_file():
            return [folder / stem]
    raise CheckpointError(
        f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin, single or "
        "with an index. Fetch the folder again, whole.",
        code="checkpoint_absent",
        name=str(folder),
    )


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / str(name) for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _bad(index, f"is no index of shards ({error})", "Fetch it again") from error
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise CheckpointError(
            f"{index.parent} lacks {len(absent)} of {len(files)} shards that {index.name} names "
            f"({', '.join(absent[:3])}). The download is not complete: fetch them.",
            code="checkpoint_absent",
            name=str(index.parent),
        )
    return files


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise _bad(
            path, f"cannot be read ({error})", "It may be cut short: fetch it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    mapped = is_mappable(path)
    if not mapped:
        _check_unmapped(path)
    try:
        with warnings.catch_warnings():  # of pickle protocols; what matters is raised
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "global " in str(error).lower():  # a name to import, as a class or a function
            raise _bad(
                path, "asks for code to be run when it is opened, and was not opened",
                "Weights need no code: fetch the file from the model's authors",
            ) from error  # fmt: skip
        raise _unreadable(path, "its bytes are no tensors") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError,
            IndexError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _unreadable(path, reason[:160]) from error


def _check_unmapped(path: Path) -> None:
    """An old pickle is read whole; a zip without its end was cut."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise _bad(path, "is cut short (its end is absent)", "Fetch it again")
    need_memory(path.stat().st_size, f"Reading {path}, which is of the old kind and not mapped,")


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return _bad(
        path, f"is not a whole torch file ({reason})",
        "It may be cut short, or another kind of file: fetch it again",
    )  # fmt: skip


def _unwrap(path: Path, found: Any) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = (
        {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise _bad(path, "holds no tensors by name", "Give a file of weights")
    return tensors


def _bad(path: Path, what: str, then: str) -> CheckpointError:
    return CheckpointError(f"{path} {what}. {then}.", code="checkpoint_file", name=str(path))
