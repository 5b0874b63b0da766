"""An engine without a model: a visible waiting line, words at a chosen pace, faults on request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from instructblip.engine.base import (
    Delta,
    FinishReason,
    Health,
    ModelCard,
    Phase,
    Request,
    SamplingParams,
    Statistics,
)
from instructblip.errors import OutOfMemory
from instructblip.images import open_upright

REFUSAL = "I cannot tell."
CARD = ModelCard(
    name="Slow test engine",
    device="cpu",
    dtype="none",
    licence="Apache-2.0",
    default_layout="append",
    layouts=("refresh", "keep", "append"),
    context_length=1024,
    image_size=112,
    tokenizer="words",
    world={"en": "It repeats the question.", "zh": "它会重复问题。"},
    can_ask={
        "en": ("What is on the left?", "What colour is it?"),
        "zh": ("What is on the left?（左边是什么？）",),
    },
    refusals={"en": (REFUSAL,)},
    generation=SamplingParams(max_new_tokens=256),
    scenes=True,
)


def words_for(request: Request) -> list[str]:
    """``count 30`` counts to 30, ``outside`` is refused, anything else is repeated."""
    question = request.question
    if question.startswith("count "):
        return [str(number) for number in range(1, int(question.split()[1]) + 1)]
    if "outside" in question:
        return REFUSAL.split()
    sampled = " (sampled)" if request.sampling.temperature > 0 else ""
    beams = f" ({request.sampling.num_beams} beams)" if request.sampling.num_beams > 1 else ""
    return f"Turn {len(request.history) + 1}: {question}{sampled}{beams}".split()


class SlowEngine:
    """Serves ``slots`` requests at a time; lives on the server's event loop."""

    def __init__(self, delay: float, slots: int) -> None:
        self.delay, self.slots = delay, slots
        self.running = 0
        self.seconds = 0.0  # that the last answer took
        self.line: list[SlowStream] = []
        self.pictures: set[str] = set()
        self.card = CARD

    def register_picture(self, picture_id: str, data: bytes) -> None:
        """Really decode it, as an engine does."""
        open_upright(data)
        self.pictures.add(picture_id)

    def has_picture(self, picture_id: str) -> bool:
        """Whether it was registered."""
        return picture_id in self.pictures

    def submit(self, request: Request) -> SlowStream:
        """Join the line."""
        stream = SlowStream(self, request)
        self.line.append(stream)
        return stream

    def statistics(self) -> dict[str, Any]:
        """Waiting and running."""
        return {"waiting": len(self.line), "running": self.running}

    def health(self) -> Health:
        """It always gets on."""
        return Health()

    def close(self, timeout: float = 3.0) -> None:
        """Nothing to stop."""


class SlowStream:
    """One answer, a word every ``delay`` seconds."""

    def __init__(self, engine: SlowEngine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.request_id = request.request_id
        self.cancelled = False

    def cancel(self) -> None:
        """Stop before the next word."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Delta]:
        raise NotImplementedError("this engine is for a server only")

    async def __aiter__(self) -> AsyncIterator[Delta]:
        submitted = time.monotonic()
        place = 0
        engine = self.engine
        while not self.cancelled and (engine.line[0] is not self or engine.running >= engine.slots):
            now = engine.line.index(self) + 1
            if now != place:
                place = now
                estimate = engine.seconds * place / engine.slots
                yield self._delta(Phase.WAITING, place=place, estimate=estimate)
            await asyncio.sleep(0.02)
        engine.line.remove(self)
        engine.running += 1
        began = time.monotonic()
        try:
            async for delta in self._answer(submitted):
                yield delta
        finally:
            engine.running -= 1
            engine.seconds = time.monotonic() - began

    async def _answer(self, submitted: float) -> AsyncIterator[Delta]:
        words = words_for(self.request)
        said = 0
        first = time.monotonic()
        if self.request.question == "fail" and not self.cancelled:
            error = OutOfMemory("no memory")
            yield self._delta(Phase.DONE, finish=FinishReason.ERROR, error=error)
            return
        beams = self.request.sampling.num_beams > 1
        for number, word in enumerate(words):
            await asyncio.sleep(self.engine.delay)
            if self.cancelled:
                break
            if beams:  # LAVIS's search says nothing before its end
                share = (number + 1) / self.request.sampling.max_new_tokens
                yield self._delta(Phase.DECODE, progress=min(share, 1.0))
                continue
            if not said:
                first = time.monotonic()
            said += 1
            yield self._delta(Phase.DECODE, text=" " * bool(number) + word, token_ids=(number,))
        if beams and not self.cancelled:
            said, first = len(words), time.monotonic()
            yield self._delta(Phase.DECODE, text=" ".join(words), token_ids=tuple(range(said)))
        statistics = Statistics(
            new_tokens=said, first_token=first - submitted, decode=time.monotonic() - first + 1e-6
        )
        yield self._delta(
            Phase.DONE,
            finish=FinishReason.CANCELLED if self.cancelled else FinishReason.STOP,
            statistics=statistics,
            answer_ids=tuple(range(said)),
            qformer_text=self.request.question,
        )

    def _delta(self, phase: Phase, **values: Any) -> Delta:
        return Delta(self.request_id, phase, **values)
