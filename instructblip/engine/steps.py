"""One forward of the language model over many sequences, ragged or static.

Ragged is right for a CPU, and for prefill everywhere; static, with no word to the host inside, is
what CUDA graphs and the NPU want (:mod:`instructblip.attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from instructblip.attention import ChunkAttention, RaggedAttention, Span, StaticAttention
from instructblip.devices import Graphs, can_capture
from instructblip.engine.kv_cache import Arena, Slot
from instructblip.model import InstructBlip

# Buckets of the static step: rows, chunk sizes and positions are rounded up to one of these.
ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
SIZES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
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

    def run(self, pieces: Sequence[Piece], between: Callable[[], None] | None = None) -> Tensor:
        """→ logits [pieces, vocabulary] in fp32 at each piece's last position.

        ``between`` is called in each layer of a ragged forward, and may end it by raising.
        """


class RaggedStep:
    """Every piece in one flat forward."""

    def __init__(self, model: InstructBlip, arena: Arena) -> None:
        self._model, self._arena = model, arena

    def run(self, pieces: Sequence[Piece], between: Callable[[], None] | None = None) -> Tensor:
        """See :class:`Stepper`."""
        tokens = iter(self._model.embed([p.token for p in pieces if p.embeds is None]))
        flat = [next(tokens)[None] if p.embeds is None else p.embeds for p in pieces]
        spans = [p.span for p in pieces]
        positions = torch.cat([torch.arange(span.start, span.end) for span in spans])
        hidden = self._model.run(
            torch.cat(flat)[None],
            positions[None].to(self._model.device),
            RaggedAttention(self._arena, spans, between),
        )
        last = torch.tensor([span.end - span.start for span in spans]).cumsum(0) - 1
        return self._model.logits(hidden[0, last.to(hidden.device)])


class StaticStep:
    """Decoding rows in one static forward, prefill chunks in another; both recorded where that can be.

    Where nothing is recorded, prefill chunks, whose shapes vary, go ragged.
    """

    def __init__(self, model: InstructBlip, arena: Arena) -> None:
        self._model, self._arena = model, arena
        self._ragged = None if can_capture(*model.devices) else RaggedStep(model, arena)
        self._graphs = Graphs(*model.devices)

    def run(self, pieces: Sequence[Piece], between: Callable[[], None] | None = None) -> Tensor:
        """See :class:`Stepper`."""
        decoding = [p for p in pieces if p.embeds is None]
        rows = iter(self._decode(decoding) if decoding else ())
        ragged = self._ragged and partial(self._ragged.run, between=between)
        prefill = ragged or self._chunk
        chunks = iter([prefill([p])[0] for p in pieces if p.embeds is not None])
        return torch.stack([next(rows if p.embeds is None else chunks) for p in pieces])

    def _decode(self, pieces: Sequence[Piece]) -> Tensor:
        rows = _bucket(max(p.slot.row for p in pieces) + 1, ROWS, len(self._arena.slots))
        longest = max(len(p.slot.keys) for p in pieces) + 1
        length = _bucket(longest, LENGTHS, self._arena.length)
        ids, lengths = [0] * rows, [self._arena.length] * rows
        for piece in pieces:
            ids[piece.slot.row], lengths[piece.slot.row] = piece.token, piece.span.start
        logits = self._replay(self.forward, length, torch.tensor([ids, lengths]))
        return logits[[p.slot.row for p in pieces]]

    def _chunk(self, pieces: Sequence[Piece]) -> Tensor:
        ((slot, embeds, _),) = pieces
        assert embeds is not None
        span, size = pieces[0].span, _bucket(len(embeds), SIZES, self._arena.length)
        length = _bucket(span.end, LENGTHS, self._arena.length)
        padded = pad(embeds, (0, 0, 0, size - len(embeds)))
        place = torch.tensor([slot.row, span.start, len(embeds)])
        return self._replay(self.chunk, length, place, padded)

    def _replay(self, forward: Callable[..., Tensor], length: int, *inputs: Tensor) -> Tensor:
        there = [given.to(self._model.device) for given in inputs]
        return self._graphs.run((forward.__name__, length), partial(forward, length=length), *there)

    def forward(self, state: Tensor, length: int) -> Tensor:
        """Ids and lengths, int64 [2, rows] on the device → logits [rows, vocabulary].

        No word to the host inside; again with the same input changes nothing.
        """
        attention = StaticAttention(self._arena, length, state[1])
        embeds = self._model.table(state[0])[:, None]
        return self._model.logits(self._model.run(embeds, attention.positions, attention)[:, 0])

    def chunk(self, place: Tensor, embeds: Tensor, length: int) -> Tensor:
        """Row, start and count [3], embeddings padded to [size, width] → logits [1, vocabulary]."""
        attention = ChunkAttention(self._arena, place, len(embeds), length)
        hidden = self._model.run(embeds[None], attention.positions, attention)[0]
        return self._model.logits(hidden.index_select(0, place[2:] - 1))


def _bucket(need: int, ladder: Sequence[int], most: int) -> int:
    """The smallest step of the ladder that holds ``need``, or ``most``."""
    return min(next((step for step in ladder if step >= need), most), most)
