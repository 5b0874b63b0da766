"""One forward of the language model over many sequences, ragged or static.

Ragged is right for a CPU, and for prefill everywhere; static, with no word to the host inside, is
what CUDA graphs and the NPU want (:mod:`instructblip.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from instructblip.attention import RaggedAttention, Span, StaticAttention
from instructblip.devices import Captured, can_capture
from instructblip.engine.kv_cache import Arena, Slot
from instructblip.model import InstructBlip

# Buckets of the static step: rows and positions are rounded up to one of these.
ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
LENGTHS = (256, 512, 768, 1024, 1536, 2048, 3072, 4096)


class Piece(NamedTuple):
    """Work on one slot: embeddings [n, width] of a prefill chunk, or the last token's id."""

    slot: Slot
    embeds: Tensor | None = None
    token: int = 0

    @property
    def size(self) -> int:
        """Positions that it writes."""
        return 1 if self.embeds is None else self.embeds.shape[0]

    @property
    def span(self) -> Span:
        """Where it writes."""
        start = len(self.slot.keys)
        return Span(self.slot.row, start, start + self.size)


class Stepper(Protocol):
    """Runs pieces; the caller counts the positions afterwards (:meth:`Arena.extend`)."""

    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """→ logits [pieces, vocabulary] in fp32 at each piece's last position."""


class RaggedStep:
    """Every piece in one flat forward."""

    def __init__(self, model: InstructBlip, arena: Arena) -> None:
        self._model, self._arena = model, arena

    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """See :class:`Stepper`."""
        tokens = iter(self._model.embed([p.token for p in pieces if p.embeds is None]))
        flat = [next(tokens)[None] if p.embeds is None else p.embeds for p in pieces]
        spans = [p.span for p in pieces]
        positions = torch.cat([torch.arange(span.start, span.end) for span in spans])
        hidden = self._model.run(
            torch.cat(flat)[None],
            positions[None].to(self._model.device),
            RaggedAttention(self._arena, spans),
        )
        last = torch.tensor([span.end - span.start for span in spans]).cumsum(0) - 1
        return self._model.logits(hidden[0, last.to(hidden.device)])


class StaticStep:
    """Decoding rows in one static forward; prefill chunks, whose shapes vary, go ragged."""

    def __init__(self, model: InstructBlip, arena: Arena) -> None:
        self._model, self._arena = model, arena
        self._ragged = RaggedStep(model, arena)
        self._captured: dict[tuple[int, int], Captured] = {}

    def run(self, pieces: Sequence[Piece]) -> Tensor:
        """See :class:`Stepper`."""
        decoding = [p for p in pieces if p.embeds is None]
        if not decoding:
            return self._ragged.run(pieces)
        logits = self._decode(decoding)
        rest = [p for p in pieces if p.embeds is not None]
        chunks = iter(self._ragged.run(rest)) if rest else iter(())
        rows = iter(logits)
        return torch.stack([next(rows) if p.embeds is None else next(chunks) for p in pieces])

    def _decode(self, pieces: Sequence[Piece]) -> Tensor:
        rows = _bucket(max(p.slot.row for p in pieces) + 1, ROWS, len(self._arena.slots))
        longest = max(len(p.slot.keys) for p in pieces) + 1
        length = _bucket(longest, LENGTHS, self._arena.length)
        ids, active = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.bool)
        for piece in pieces:
            ids[piece.slot.row], active[piece.slot.row] = piece.token, True
        device = self._model.device
        logits = self._replay(ids.to(device), active.to(device), length)
        return logits[torch.tensor([p.slot.row for p in pieces], device=device)]

    def _replay(self, ids: Tensor, active: Tensor, length: int) -> Tensor:
        if not can_capture(*self._model.devices):
            return self.forward(ids, active, length)
        key = (ids.shape[0], length)
        if key not in self._captured:
            forward = partial(self.forward, length=length)
            idle = torch.zeros_like(active)  # with no active row nothing is written
            self._captured[key] = Captured(forward, (ids, idle))
        return self._captured[key].run((ids, active))

    def forward(self, ids: Tensor, active: Tensor, length: int) -> Tensor:
        """ids and active [rows] on the device → logits [rows, vocabulary]; no host sync inside."""
        attention = StaticAttention(self._arena, length, active)
        embeds = self._model.table(ids)[:, None]
        return self._model.logits(self._model.run(embeds, attention.positions, attention)[:, 0])


def _bucket(need: int, ladder: Sequence[int], most: int) -> int:
    """The smallest step of the ladder that holds ``need``, or ``most``."""
    return min(next((step for step in ladder if step >= need), most), most)
