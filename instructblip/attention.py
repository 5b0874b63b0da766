"""LLaMA's attention over slots: transformers' module, with keys and values kept in an arena.

*Ragged*: tokens of all sequences lie end to end, and each attends to its own row over its own
length. *Static*: one token for each of the first rows over a bucket of positions, with one bool
mask; shapes and addresses are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from instructblip.fused import attend, attention_mask
from instructblip.kernels import fetch, store

# isort: split
# After instructblip.devices, which hides a torch_npu that cannot be imported.
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb


class Attending(Protocol):
    """Keeps keys and values and attends (see :mod:`instructblip.engine.steps`)."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, heads, n, d] each → [B, n, heads·d]."""

    def on(self, device: torch.device) -> Attending:
        """The same for the layers on another device of a spread model."""


class KeysAndValues(Protocol):
    """What an arena offers (:class:`instructblip.engine.kv_cache.Arena`)."""

    length: int
    keys: list[Tensor]  # per layer [rows, heads, length + 1, d]
    values: list[Tensor]


class Span(NamedTuple):
    """Positions ``start``…``end`` of a row."""

    row: int
    start: int
    end: int


class RaggedAttention:
    """Writes keys and values of a flat batch into the arena and attends row by row.

    ``between`` is called in each layer, and may end the forward by raising.
    """

    def __init__(
        self, arena: KeysAndValues, spans: Sequence[Span], between: Callable[[], None] | None = None
    ) -> None:
        self._arena, self._between = arena, between
        self._spans: list[tuple[Span, int, Tensor | None]] = []
        at = 0
        for span in spans:
            size, mask = span.end - span.start, None
            if size > 1:
                ones = torch.ones(size, span.end, dtype=torch.bool, device=arena.keys[0].device)
                mask = attention_mask(ones.tril(diagonal=span.start), arena.keys[0].dtype)
            self._spans.append((span, at, mask))
            at += size

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[1, heads, T, d] each → [1, T, heads·d]."""
        if self._between is not None:
            self._between()
        keys, values = self._arena.keys[layer], self._arena.values[layer]
        parts = []
        for (row, start, end), at, mask in self._spans:
            here = slice(at, at + end - start)
            keys[row, :, start:end] = key[0, :, here]
            values[row, :, start:end] = value[0, :, here]
            seen, said = keys[row : row + 1, :, :end], values[row : row + 1, :, :end]
            parts.append(attend(query[:, :, here], seen, said, mask))
        return torch.cat(parts, 2).transpose(1, 2).flatten(2)

    def on(self, device: torch.device) -> RaggedAttention:
        """See :class:`Attending`."""
        there = copy(self)
        there._spans = [(s, at, None if m is None else m.to(device)) for s, at, m in self._spans]
        return there


class Movable:
    """Goes to another device with the tensors of its own that attending takes."""

    def on(self, device: torch.device) -> Self:
        """See :class:`Attending`."""
        there = copy(self)
        for name, held in vars(self).items():
            if name.startswith("_") and isinstance(held, Tensor):
                setattr(there, name, held.to(device))
        return there


class StaticAttention(Movable):
    """One new token for the first rows of the arena, at ``lengths``, int64 [rows] on the device.

    A row whose length is the arena's takes no part: what it writes nobody reads.
    """

    def __init__(self, arena: KeysAndValues, length: int, lengths: Tensor) -> None:
        self._arena, self._length, self._at = arena, length, lengths
        seen = torch.arange(length, device=lengths.device) <= lengths[:, None]
        self._mask = attention_mask(seen[:, None, None], arena.keys[0].dtype)
        self.positions = lengths[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[rows, heads, 1, d] each → [rows, 1, heads·d]."""
        keys, values = self._arena.keys[layer], self._arena.values[layer]
        store(keys, values, None, self._at, key[:, :, 0], value[:, :, 0])
        seen, said = (kept[: len(self._at), :, : self._length] for kept in (keys, values))
        return attend(query, seen, said, self._mask).transpose(1, 2).flatten(2)


class ChunkAttention(Movable):
    """The next ``count`` positions of one row, padded to ``size``; a fixed shape for a recording.

    ``place``: row, start and count, int64 [3] on the device. Padding is written where nobody reads.
    """

    def __init__(self, arena: KeysAndValues, place: Tensor, size: int, length: int) -> None:
        row, start, count = place.unbind()
        steps = torch.arange(size, device=place.device)
        self._arena, self._length = arena, length
        self._at = torch.where(steps < count, start + steps, arena.length)
        self._rows, self._row = row.repeat(size), row[None]
        self.positions = (start + steps)[None]
        seen = torch.arange(length, device=place.device) <= self.positions[0][:, None]
        self._mask = attention_mask(seen, arena.keys[0].dtype)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[1, heads, size, d] each → [1, size, heads·d]."""
        keys, values = self._arena.keys[layer], self._arena.values[layer]
        store(keys, values, self._rows, self._at, key[0].transpose(0, 1), value[0].transpose(0, 1))
        seen, said = (fetch(kept, self._row, self._length) for kept in (keys, values))
        return attend(query, seen, said, self._mask).transpose(1, 2).flatten(2)


class SlotAttention(LlamaAttention):
    """The same weights; with ``slots`` the new keys and values go there, else as transformers."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        slots: Attending | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[B, n, width] → [B, n, width], no weights."""
        if slots is None:
            plain: tuple[Tensor, Tensor | None] = super().forward(
                hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
            )
            return plain
        assert position_embeddings is not None
        query, key, value = self.project(hidden_states, position_embeddings)
        return self.o_proj(slots.attend(self.layer_idx, query, key, value)), None

    def project(self, hidden: Tensor, angles: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """[B, n, width] → queries, keys (turned by ``angles``) and values [B, heads, n, d]."""
        shape = (*hidden.shape[:-1], -1, self.head_dim)
        query, key, value = (
            linear(hidden).view(shape).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *angles[:2])
        return query, key, value


class PictureProjection(nn.Linear):
    """A key or value projection of the Q-Former's cross-attention, made once for each picture.

    It hangs on the picture alone, while the rest of the Q-Former hangs on the instruction too.
    """

    kept: dict[int, Tensor] | None = None  # of the picture that is queried now
    place: int

    def forward(self, x: Tensor) -> Tensor:
        """[1, patches + 1, vision width] → [1, patches + 1, width]."""
        if self.kept is None:
            return super().forward(x)
        if self.place not in self.kept:
            self.kept[self.place] = super().forward(x)
        return self.kept[self.place]


def keep_projections(qformer: nn.Module) -> list[PictureProjection]:
    """Give a Q-Former's cross-attentions :class:`PictureProjection`; weights and names stay."""
    made: list[PictureProjection] = []
    for name, module in qformer.named_modules():
        if name.endswith((".crossattention.attention.key", ".crossattention.attention.value")):
            module.__class__ = PictureProjection
            module.place = len(made)  # type: ignore[assignment]
            made.append(module)  # type: ignore[arg-type]
    return made


def use_slots(language_model: nn.Module) -> None:
    """Give every layer of a LLaMA :class:`SlotAttention`; weights and their names stay."""
    for layer in language_model.model.layers:  # type: ignore[union-attr]
        if type(layer.self_attn) is LlamaAttention:
            layer.self_attn.__class__ = SlotAttention
