"""The language model over a left-padded batch of prompts, in units of work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from instructblip.errors import DeviceError

if TYPE_CHECKING:
    from instructblip.model import InstructBlip

# Told after each unit of work: units done, and at most how many there will be. May raise to stop.
Progress = Callable[[int, int], None]
# Positions of all rows together in one prefill chunk. Fixed, so that a run can be repeated exactly.
CHUNK_TOKENS = {"cpu": 64}
CHUNK_TOKENS_ELSEWHERE = 512


def chunk_tokens(device: torch.device) -> int:
    """Positions, of all rows together, that one unit of work may run on this device."""
    return CHUNK_TOKENS.get(device.type, CHUNK_TOKENS_ELSEWHERE)


class Work:
    """Counts units of work and tells who asked."""

    def __init__(self, progress: Progress | None = None, expected: int = 0) -> None:
        self._progress = progress
        self._done, self._most = 0, expected

    def expect(self, more: int) -> None:
        """So many units more than thought."""
        self._most += more

    def unit(self) -> None:
        """One unit is done. Whatever the callback raises ends the work."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, max(self._most, self._done))


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts as LAVIS lays them out: ``[image tokens][padding][text]``.

    ``embeds`` is [prompts, n, width]; ``mask`` [prompts, n] is 0 at the padding.
    """

    embeds: Tensor
    mask: Tensor

    @classmethod
    def pad(cls, images: Sequence[Tensor], texts: Sequence[Tensor]) -> PromptBatch:
        """Join image tokens and text embeddings, each [n, width], of each prompt."""
        longest = max(len(i) for i in images) + max(len(t) for t in texts)
        embeds = texts[0].new_zeros(len(texts), longest, texts[0].shape[1])
        mask = torch.zeros(len(texts), longest, dtype=torch.long, device=embeds.device)
        for row, (image, text) in enumerate(zip(images, texts, strict=True)):
            for place in (slice(0, len(image)), slice(longest - len(text), longest)):
                mask[row, place] = 1
            embeds[row, : len(image)] = image.to(embeds)
            embeds[row, longest - len(text) :] = text
        return cls(embeds, mask)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, padding left out."""
        return int(self.mask.sum(1).max())

    def chunk(self) -> int:
        """Positions in one prefill chunk."""
        return max(1, chunk_tokens(self.embeds.device) // len(self.embeds))

    def chunks(self) -> int:
        """How many prefill chunks there are."""
        return math.ceil(self.embeds.shape[1] / self.chunk())


class Decoder:
    """The language model over the rows of a batch, with their keys and values."""

    def __init__(self, model: InstructBlip, batch: PromptBatch) -> None:
        self._model = model
        self._batch = batch
        self._cache = DynamicCache()
        # One prompt alone needs no mask, which lets attention take its fast path.
        self._mask = None if bool(batch.mask.all()) else batch.mask
        # As LAVIS: positions count what is not padding, and padding has position 1.
        counted = batch.mask.cumsum(1) - 1
        self._positions = counted.masked_fill(batch.mask == 0, 1)
        self._next = counted[:, -1:] + 1

    def prefill(self, work: Work) -> Tensor:
        """Run the prompts, in chunks. → logits [prompts, vocabulary] of their last positions."""
        size, length = self._batch.chunk(), self._batch.embeds.shape[1]
        for start in range(0, length, size):
            end = min(start + size, length)
            mask = None if self._mask is None else self._mask[:, :end]
            hidden = self._hidden(
                self._batch.embeds[:, start:end], mask, self._positions[:, start:end]
            )
            logits = self._logits(hidden[:, -1]) if end == length else hidden
            work.unit()
        return logits

    def expand(self, width: int) -> None:
        """Repeat each prompt's row ``width`` times, side by side."""
        if width > 1:
            self._cache.batch_repeat_interleave(width)
            self._next = self._next.repeat_interleave(width, 0)
            if self._mask is not None:
                self._mask = self._mask.repeat_interleave(width, 0)

    def step(self, ids: Tensor, rows: Tensor | None) -> Tensor:
        """Give each row its next id, going on from row ``rows[i]``. → logits [rows, vocabulary]."""
        if rows is not None and not torch.equal(rows, torch.arange(len(rows))):
            # Rows change places within one prompt only, so mask and positions stay.
            self._cache.reorder_cache(rows.to(self._next.device))
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        embeds = self._model.embed(ids.tolist())[:, None]
        hidden = self._hidden(embeds, self._mask, self._next)
        self._next = self._next + 1
        return self._logits(hidden[:, -1])

    def extend(self, ids: Tensor) -> Tensor:
        """Run ids [rows, n] after the prompt. → logits [rows, n, vocabulary]."""
        rows, count = ids.shape
        embeds = self._model.embed(ids.flatten().tolist()).view(rows, count, -1)
        positions = self._next + torch.arange(count, device=self._next.device)
        return self._logits(self._hidden(embeds, self._mask, positions))

    def fork(self, width: int) -> Decoder:
        """A decoder of one prompt's keys and values, ``width`` times; this one stays as it is."""
        other = Decoder(self._model, self._batch)
        for index, layer in enumerate(self._cache.layers):
            keys, values = (t.repeat_interleave(width, 0) for t in (layer.keys, layer.values))
            other._cache.update(keys, values, index)
        other._next = self._next.repeat_interleave(width, 0)
        return other

    def _hidden(self, embeds: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        hidden: Tensor = self._model.weights.language_model.model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        """In fp32 on the CPU, without the ids that are no text ([PAD], ``<image>``)."""
        logits: Tensor = self._model.weights.language_model.lm_head(hidden)
        logits = logits[..., : self._model.tokenizer.size].float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise DeviceError(
                "The model's output is not a number (NaN or infinite): an overflow, or damaged "
                "weights. Try --dtype fp32 or bf16, or load the weights again.",
                code="not_finite",
            )
        return logits
