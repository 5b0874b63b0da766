"""Safetensors shards written tensor by tensor: no more than one tensor is in memory.

The format (https://huggingface.co/docs/safetensors) is a length of 8 bytes, a JSON header and the
tensors' bytes; the library's own writer wants all tensors of a file at once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instructblip.checkpoints.assemble import Entry, stream
from instructblip.devices import Precision

SHARD_BYTES = 5_000_000_000
LINE = 64  # bytes of a cache line
_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8",
    torch.int8: "I8",
}  # fmt: skip


def write_shards(
    folder: Path,
    entries: Sequence[Entry],
    precision: Precision,
    *,
    shard_bytes: int = SHARD_BYTES,
    done: Callable[[int], object] = lambda size: None,
) -> None:
    """Write ``model.safetensors``, or shards and their index, as transformers names them.

    ``done`` is told the bytes of each written tensor. Tensors of whole cache lines come first, each
    at the beginning of one, as a processor's kernels want them; then the others, wide dtypes first,
    so that every tensor begins at a multiple of its own width and can be mapped.
    """

    def order(entry: Entry) -> tuple[bool, int, str]:
        dtype = precision.of(entry.name)
        # Quantised weights are an even number of bytes: they may stand among tensors of two, and
        # beside their scales, with which they are made (apart, as lm_head's, they are made twice).
        return entry.nbytes(dtype) % LINE != 0, -max(dtype.itemsize, 2), str(entry.file)

    ordered = sorted(entries, key=order)
    shards = list(_split(ordered, precision, shard_bytes))
    names = [_shard_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write(folder / name, shard, precision, done)
    if len(shards) > 1:
        total = sum(entry.nbytes(precision.of(entry.name)) for entry in ordered)
        places = {e.name: n for n, shard in zip(names, shards, strict=True) for e in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _split(
    entries: Sequence[Entry], precision: Precision, shard_bytes: int
) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        extra = entry.nbytes(precision.of(entry.name))
        if shard and size + extra > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += extra
    yield shard


def _shard_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write(
    path: Path, entries: Sequence[Entry], precision: Precision, done: Callable[[int], object]
) -> None:
    with path.open("wb") as file:
        file.write(_header(entries, precision))
        for name, tensor in stream(entries):
            done(file.write(_bytes(tensor.to(precision.of(name)))))  # no name keeps the bytes


def _header(entries: Sequence[Entry], precision: Precision) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for entry in entries:
        dtype = precision.of(entry.name)
        end = place + entry.nbytes(dtype)
        header[entry.name] = {
            "dtype": _NAMES[dtype], "shape": list(entry.shape), "data_offsets": [place, end],
        }  # fmt: skip
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % LINE)
    return struct.pack("<Q", len(text)) + text


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
