"""One answer in the making: its phases, its times, and the two loops that run the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from torch import Tensor

from instructblip.conversation import Prompt
from instructblip.engine.base import Delta, FinishReason, Phase, Request, Statistics
from instructblip.engine.kv_cache import Slot
from instructblip.engine.sampling import Sampler
from instructblip.engine.stream import LocalStream
from instructblip.engine.text import TextStream
from instructblip.model import InstructBlip

# A prefill chunk adapts to last about this long (seconds), so that Stop is never far away.
CHUNK_SECONDS = 0.3
CHUNK_TOKENS = (16, 512)

Unit = Callable[[str], None]


class Interrupted(Exception):
    """Raised between two units of work when the request is to end."""

    def __init__(self, reason: FinishReason) -> None:
        self.reason = reason


class Answer:
    """State of one request inside the engine."""

    def __init__(
        self, request: Request, prompt: Prompt, stream: LocalStream, context_length: int
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.stream = stream
        self.place = -1
        self._context = context_length
        self._ids: list[int] = []
        self._text: TextStream | None = None
        self._submitted = time.monotonic()
        self._mark = self._submitted
        self._first = 0.0
        self._statistics = Statistics(prompt_tokens=len(prompt), trimmed_turns=prompt.trimmed_turns)

    def interrupted(self) -> FinishReason | None:
        """Why this request is to end now, if it is."""
        if self.stream.cancelled.is_set():
            return FinishReason.CANCELLED
        deadline = self.request.deadline
        return FinishReason.DEADLINE if deadline and time.monotonic() > deadline else None

    def check(self) -> None:
        """Raise Interrupted if this request is to end."""
        if (reason := self.interrupted()) is not None:
            raise Interrupted(reason)

    def put(self, phase: Phase, text: str = "", ids: Sequence[int] = ()) -> None:
        """Send a Delta."""
        self.stream.put(
            Delta(
                self.request.request_id,
                phase,
                text,
                tuple(ids),
                place=max(self.place, 0),
                statistics=self._statistics,
            )
        )

    def started(self) -> None:
        """The engine took the request out of the line."""
        self._lap("waited")
        self.put(Phase.ENCODING)

    def prefilling(self, reused: int) -> None:
        """All embeddings are there."""
        self._lap("encode")
        self._statistics = replace(self._statistics, reused_tokens=reused)
        self.put(Phase.PREFILL)

    def prefill(
        self, model: InstructBlip, embeds: Tensor, slot: Slot, keys: list[Hashable], unit: Unit
    ) -> Tensor:
        """Run the prompt after what ``slot`` holds, in chunks. → logits of its last position."""
        size = CHUNK_TOKENS[0] * 4
        logits = embeds.new_empty(0)
        while (start := len(slot.keys)) < len(keys):
            end = min(start + size, len(keys))
            began = time.monotonic()
            logits = model.forward(embeds[start:end], slot.cache, start)
            slot.keys.extend(keys[start:end])
            size = _next_chunk(end - start, time.monotonic() - began)
            unit("prefill")
        self._lap("prefill")
        return logits

    def decode(self, model: InstructBlip, logits: Tensor, slot: Slot, unit: Unit) -> FinishReason:
        """Choose tokens until the end; each forward is one unit."""
        sampler = Sampler(self.request.sampling)
        text = self._text = TextStream(model.tokenizer.decode, self.request.sampling.stop)
        room = self._context - len(slot.keys)
        limit = min(self.request.sampling.max_new_tokens, room)
        while True:
            token = sampler.choose(logits)
            self._ids.append(token)
            piece = "" if token == model.tokenizer.end_id else text.push(token)
            self._count_token()
            self.put(Phase.DECODE, piece, (token,))
            if token == model.tokenizer.end_id or text.stopped:
                return FinishReason.STOP
            if len(self._ids) >= limit:
                return FinishReason.LENGTH
            logits = model.forward(model.embed((token,)), slot.cache, len(slot.keys))
            slot.keys.append(token)
            unit("decode")

    def end(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Send the last Delta, with the text that was held back."""
        piece = self._text.finish() if self._text is not None else ""
        self.stream.put(
            Delta(
                self.request.request_id,
                Phase.DONE,
                piece,
                finish=reason,
                error=error,
                statistics=self._statistics,
                answer_ids=tuple(self._ids),
                qformer_text=self.prompt.qformer_text,
            )
        )

    def _count_token(self) -> None:
        now = time.monotonic()
        if not self._first:
            self._first = now
        self._statistics = replace(
            self._statistics,
            new_tokens=len(self._ids),
            first_token=self._first - self._submitted,
            decode=now - self._first,
        )

    def _lap(self, name: str) -> None:
        now = time.monotonic()
        lap = {name: now - self._mark}
        self._statistics = replace(self._statistics, **lap)  # type: ignore[arg-type]
        self._mark = now


def _next_chunk(tokens: int, seconds: float) -> int:
    """A chunk that should last CHUNK_SECONDS at the speed just seen."""
    low, high = CHUNK_TOKENS
    return int(min(max(tokens * CHUNK_SECONDS / max(seconds, 1e-6), low), high))
