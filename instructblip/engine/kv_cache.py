"""Keys and values of one conversation in buffers that grow by doubling and are cut by length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class SlotLayer(DynamicLayer):
    """One layer's buffers [1, heads, capacity, d]. An update writes in place and returns views.

    transformers' own DynamicLayer copies the whole cache at each token.
    """

    _keys: torch.Tensor
    _values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.capacity = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [1, heads, n, d] and return all keys and values so far."""
        end = self.length + key_states.shape[-2]
        if end > self.capacity:
            self._grow(end, key_states, value_states)
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self.is_initialized = True
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _grow(self, need: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        capacity = max(64, self.capacity)
        while capacity < need:
            capacity *= 2
        for name, like in (("_keys", keys), ("_values", values)):
            shape = (*like.shape[:2], capacity, like.shape[-1])
            fresh = like.new_zeros(shape)
            if self.length:
                fresh[:, :, : self.length] = getattr(self, name)[:, :, : self.length]
            setattr(self, name, fresh)
        self.capacity = capacity

    def get_seq_length(self, *args: Any) -> int:
        """Positions held."""
        return self.length

    def get_mask_sizes(self, query_length: Any, *args: Any) -> tuple[int, int]:
        """Length of the keys after the update, and its offset."""
        count = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.length + int(count), 0

    def nbytes(self) -> int:
        """Bytes of both buffers."""
        if not self.capacity:
            return 0
        return 2 * self._keys.numel() * self._keys.element_size()


class Slot:
    """The cache of one conversation with the key of each position it holds."""

    def __init__(self, layers: int) -> None:
        self.layers = [SlotLayer() for _ in range(layers)]
        self.cache = Cache(layers=self.layers)
        self.keys: list[Hashable] = []

    def common_prefix(self, keys: Sequence[Hashable]) -> int:
        """Positions at the front that are already held."""
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.keys, keys)))  # noqa: B905

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on; nothing is copied."""
        for layer in self.layers:
            layer.length = min(layer.length, length)
        del self.keys[length:]

    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(layer.nbytes() for layer in self.layers)


class SlotPool:
    """A bounded set of slots, least recently used first out."""

    def __init__(self, layers: int, capacity: int) -> None:
        self._layers = layers
        self._capacity = capacity
        self._slots: list[Slot] = []  # most recently used last

    def take(self, keys: Sequence[Hashable]) -> tuple[Slot, int]:
        """The slot with the longest common prefix, cut to it, or a fresh one. → (slot, reused)."""
        best = max(self._slots, key=lambda s: s.common_prefix(keys), default=None)
        # The last position is always computed again: its logits choose the first token.
        shared = min(best.common_prefix(keys), len(keys) - 1) if best is not None else 0
        if best is None or shared == 0:
            best, shared = Slot(self._layers), 0
            self._slots.append(best)
            del self._slots[: -self._capacity]
        else:
            self._slots.remove(best)
            self._slots.append(best)
        best.truncate(shared)
        return best, shared

    def drop(self, slot: Slot) -> None:
        """Forget a slot, after a failure left it half-written."""
        if slot in self._slots:
            self._slots.remove(slot)

    def clear(self) -> None:
        """Forget all."""
        self._slots.clear()

    def nbytes(self) -> int:
        """Bytes of all slots."""
        return sum(slot.nbytes() for slot in self._slots)

    def __len__(self) -> int:
        return len(self._slots)
