"""A fixed arena of slots: keys and values at addresses that never move, reused across turns.

A conversation keeps its slot between turns while there is room; the least recently used one goes
first and is computed again when it returns. A branch copies the prefix it shares by one slot copy;
joining and leaving a batch copy nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instructblip.errors import OutOfMemory


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Of the language model: layers, heads of keys and values, width of a head."""

    layers: int
    heads: int
    width: int

    @classmethod
    def of(cls, config: Any) -> CacheShape:
        """Read from a LLaMA configuration of transformers."""
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(config.num_hidden_layers, config.num_key_value_heads, width)

    def nbytes(self, length: int, dtype: torch.dtype) -> int:
        """Bytes of one slot of ``length`` positions."""
        return 2 * self.layers * self.heads * (length + 1) * self.width * dtype.itemsize


@dataclass(eq=False, slots=True)
class Slot:
    """One row of the arena: the key of each position it holds, and whether a request runs on it."""

    row: int
    keys: list[Hashable] = field(default_factory=list)
    busy: bool = False
    used: int = 0

    def common_prefix(self, keys: Sequence[Hashable]) -> int:
        """Positions at the front that are already held."""
        pairs = zip(self.keys, keys)  # noqa: B905 the shorter one ends it
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class Arena:
    """Keys and values, per layer [rows, heads, length + 1, width], on one device or each layer's.

    The last position of a row is never read: rows that do not take part in a static step write there.
    """

    def __init__(
        self, shape: CacheShape, rows: int, length: int, dtype: torch.dtype,
        devices: torch.device | Sequence[torch.device],
    ) -> None:  # fmt: skip
        each = [devices] * shape.layers if isinstance(devices, torch.device) else devices
        self.shape, self.length = shape, length
        size = (rows, shape.heads, length + 1, shape.width)
        # Zeroed: a masked position's value is multiplied by zero, and NaN times zero is NaN.
        self.keys = [_zeros(size, dtype, device) for device in each]
        self.values = [_zeros(size, dtype, device) for device in each]
        self.slots = [Slot(row) for row in range(rows)]
        self._clock = 0

    def take(self, keys: Sequence[Hashable]) -> tuple[Slot, int] | None:
        """A slot that holds the longest known beginning of ``keys`` and no more. → slot, reused.

        None while requests run on all slots. The caller releases it.
        """
        shares = {slot.row: slot.common_prefix(keys) for slot in self.slots}
        best = max(self.slots, key=lambda s: (shares[s.row], not s.busy, s.used))
        # The last position is always computed again: its logits choose the first token.
        shared = min(shares[best.row], len(keys) - 1)
        chosen = self._free()
        if chosen is None:
            return None
        goes_on = shares[best.row] == len(best.keys)
        if shared and not best.busy and (goes_on or chosen.keys):
            chosen = best
        elif shared:
            self.cut(chosen, 0)  # a copy that fails leaves nothing to be trusted
            self._copy(best.row, chosen.row, shared)
            chosen.keys = best.keys[:shared]
        self.cut(chosen, shared)
        self._clock += 1
        chosen.busy, chosen.used = True, self._clock
        return chosen, shared

    def _free(self) -> Slot | None:
        """An empty slot, or else the least recently used idle one."""
        idle = (slot for slot in self.slots if not slot.busy)
        return min(idle, key=lambda s: (bool(s.keys), s.used, s.row), default=None)

    def _copy(self, source: int, target: int, count: int) -> None:
        for buffer in (*self.keys, *self.values):
            buffer[target, :, :count] = buffer[source, :, :count]

    def cut(self, slot: Slot, length: int) -> None:
        """Forget all positions from ``length`` on; nothing is copied."""
        del slot.keys[length:]

    def extend(self, slot: Slot, keys: Sequence[Hashable]) -> None:
        """Count positions that a forward has written."""
        slot.keys.extend(keys)

    def wipe(self, slot: Slot) -> None:
        """Empty a slot whose numbers are not finite, so that they spoil nobody else's."""
        for buffer in (*self.keys, *self.values):
            buffer[slot.row] = 0
        self.cut(slot, 0)

    @property
    def held(self) -> int:
        """Slots that hold a conversation."""
        return sum(bool(slot.keys) for slot in self.slots)

    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return 2 * len(self.keys) * self.keys[0].numel() * self.keys[0].element_size()


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take memory on a CPU only as they are written: torch's own are written at once."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    lazy = np.zeros(math.prod(size) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(lazy).view(dtype).view(size)


def rows_within(memory: int, shape: CacheShape, length: int, dtype: torch.dtype, most: int) -> int:
    """How many slots of ``length`` positions fit into ``memory`` bytes, ``most`` at the most.

    Raises:
        OutOfMemory: not even one fits.
    """
    each = shape.nbytes(length, dtype)
    if memory < each:
        raise OutOfMemory(
            f"Keys and values of one conversation take {each / 2**20:.0f} MiB, and "
            f"{memory / 2**20:.0f} MiB are there for them. Free memory, raise --kv-memory, or "
            "lower context_length in the model's properties.json.",
            code="kv_memory",
        )
    return min(most, memory // each)
