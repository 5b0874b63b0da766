"""Files of weights: what a file really is, and its tensors, mapped rather than read.

Nothing in a weight file is ever run: ``.pth`` and ``.bin`` are read with ``weights_only=True``,
which builds tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from instructblip.checkpoints.kinds import file_kind, first_bytes
from instructblip.checkpoints.room import need_memory
from instructblip.checkpoints.weights import weight_files
from instructblip.errors import CheckpointError

SAFETENSORS = ".safetensors"
# What wrappers of a model put into its tensors' names: DataParallel and DistributedDataParallel,
# torch.compile, FSDP, and checkpointed activations. No part of ours has such a name.
_WRAPPED = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
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
    used. A wrapper as LAVIS saves it, ``{"model": …}``, is opened, and what DataParallel or
    torch.compile put into the names (``module.``, ``_orig_mod.``) is taken out.

    Raises:
        CheckpointError: not a weight file, cut short, or a pickle that carries code.
    """
    check_kind(path)
    if path.suffix == SAFETENSORS:
        return _plain_names(_read_safetensors(path))
    return _plain_names(_unwrap(path, _read_pickle(path)))


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without wrappers' parts; as they are where two tensors would get one name."""
    plain = {".".join(p for p in n.split(".") if p not in _WRAPPED): t for n, t in tensors.items()}
    return plain if len(plain) == len(tensors) else tensors


def is_mappable(path: Path) -> bool:
    """Whether the file's tensors can be mapped; an old ``.pth`` that is no zip is read whole."""
    return path.suffix == SAFETENSORS or zipfile.is_zipfile(path)


def check_kind(path: Path) -> None:
    """Refuse what only carries a weight file's name.

    Raises:
        CheckpointError: absent, no file, empty, a Git LFS pointer, a web page, or another format.
    """
    try:
        if path.exists() and not path.is_file():
            raise _bad(
                path, "is a folder or a device, not a file of weights", "Give the file in it"
            )
        start = first_bytes(path)
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})", "Check the path") from error
    if (kind := file_kind(start)) is not None:
        raise CheckpointError(f"{path} {kind}.", code="checkpoint_file", name=str(path))
    if path.suffix == SAFETENSORS and start.startswith((b"PK", b"\x80")):
        raise _bad(path, "is a torch file under another name", "Rename it to end with .bin")
    if path.suffix != SAFETENSORS and start[4:9] == b"\0\0\0\0{":  # its header's length, and JSON
        raise _bad(
            path, "is safetensors under another name", f"Rename it to end with {SAFETENSORS}"
        )


def shard_files(folder: Path) -> list[Path]:
    """The weight files of a folder in the transformers layout, sharded or single.

    Raises:
        CheckpointError: as of :func:`~instructblip.checkpoints.weights.weight_files`.
    """
    return list(weight_files(folder).files)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever bytes of unknown origin set off
        raise _bad(
            path, f"cannot be read ({error})", "It may be cut short: fetch it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    mapped = is_mappable(path)
    if not mapped:
        _check_unmapped(path)
    elif _is_compressed(path):
        raise _bad(
            path, "is a compressed archive, not a torch file", "Unpack it, and give what is in it"
        )
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
    except Exception as error:  # whatever bytes of unknown origin set off
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _unreadable(path, reason[:160]) from error


def _is_compressed(path: Path) -> bool:
    """Torch stores its pickle as it is; another program's may unpack to anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if part.filename.endswith("data.pkl")]
            return any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    except Exception:  # a damaged directory, which torch's own reader then names
        return False


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
        {str(k): v for k, v in found.items() if isinstance(v, Tensor) and v.layout is torch.strided}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise _bad(path, "holds no tensors by name", "Give a file of weights")
    return tensors


def _bad(path: Path, what: str, then: str) -> CheckpointError:
    return CheckpointError(f"{path} {what}. {then}.", code="checkpoint_file", name=str(path))
