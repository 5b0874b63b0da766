"""One answer in the making: its phase, its place in the prompt, its text and its times."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from instructblip.conversation import ImageSegment, Prompt, TextSegment
from instructblip.engine.base import Delta, FinishReason, Phase, Request, Statistics
from instructblip.engine.kv_cache import Slot
from instructblip.engine.sampling import Sampler
from instructblip.engine.stream import LocalStream
from instructblip.engine.text import TextStream
from instructblip.errors import failed_inside
from instructblip.model import InstructBlip

log = logging.getLogger(__name__)
Encode = Callable[[ImageSegment], Tensor | None]


class Answer:
    """State of one request inside the engine."""

    def __init__(
        self, request: Request, prompt: Prompt, stream: LocalStream, model: InstructBlip,
        context: int,
    ) -> None:  # fmt: skip
        self.request, self.prompt, self.stream = request, prompt, stream
        self.keys: list[Hashable] = prompt.keys()
        self.phase = Phase.WAITING
        self.place = -1
        self.estimate = 0.0
        self.slot: Slot | None = None
        self.retried = False
        self.suspected = False  # it was running when the engine's loop failed
        self._model = model
        self._embeds: Tensor | None = None  # of the positions that are still to be prefilled
        self._base = 0  # the first position of _embeds
        self.sampler = Sampler(request.sampling, model.tokenizer.end_id)
        self._text = TextStream(model.tokenizer.decode, request.sampling.stop)
        self._limit = min(request.sampling.max_new_tokens, context - len(self.keys))
        self._submitted = self._mark = time.monotonic()
        self._first = 0.0
        self._untold: int | None = None
        self._statistics = Statistics(prompt_tokens=len(prompt), trimmed_turns=prompt.trimmed_turns)

    def interrupted(self) -> FinishReason | None:
        """Why this request is to end now, if it is."""
        if self.stream.cancelled.is_set() or self.stream.ended:
            return FinishReason.CANCELLED
        deadline = self.request.deadline
        return FinishReason.DEADLINE if deadline and time.monotonic() > deadline else None

    def put(self, text: str = "", ids: Sequence[int] = (), **fields: object) -> None:
        """Send a Delta."""
        self.stream.put(Delta(
            self.request.request_id, self.phase, text, tuple(ids), place=max(self.place, 0),
            estimate=self.estimate, statistics=self._statistics, **fields,  # type: ignore[arg-type]
        ))  # fmt: skip

    def move(self, place: int, estimate: float) -> None:
        """Tell it its place in the line, and the seconds until it is served."""
        self.place, self.estimate = place, estimate
        self.put()

    @property
    def beams(self) -> bool:
        """Whether this is a beam search, which has caches of its own and no slot."""
        return self.request.sampling.num_beams > 1

    def start(self, slot: Slot | None, reused: int) -> None:
        """The scheduler gave it a slot that holds its first ``reused`` positions."""
        self._lap("waited")
        self.slot, self.place, self.estimate, self.phase = slot, 0, 0.0, Phase.ENCODING
        self._statistics = replace(self._statistics, reused_tokens=reused)
        self.put()

    def again(self) -> None:
        """A unit of work is tried once more; a beam search from its prompt on."""
        if self.beams and self.phase is Phase.DECODE:
            self.phase = Phase.PREFILL

    def restart(self) -> None:
        """Wait for a slot again, after the engine lost it; what was said stays said."""
        self.keys = [*self.prompt.keys(), *self.sampler.ids]
        self.slot, self._embeds, self.phase = None, None, Phase.WAITING

    def encode(self, encode: Encode) -> None:
        """One unit: the next picture or instruction that is not encoded yet, or all embeddings.

        ``encode`` returns the image tokens of a segment, or None after a unit of work towards them.
        """
        held, at, parts = len(self.slot.keys) if self.slot else 0, 0, []
        for segment in self._segments():
            end = at + segment.length
            if end > held:  # what the slot holds needs no embeddings
                if isinstance(segment, TextSegment):
                    embeds = self._model.embed(segment.ids)
                elif (found := encode(segment)) is None:
                    return
                else:
                    embeds = found
                parts.append(embeds[max(held - at, 0) :])
            at = end
        self._embeds, self._base = torch.cat(parts), held
        self._lap("encode")
        self.phase = Phase.PREFILL
        self.put()

    def _segments(self) -> tuple[ImageSegment | TextSegment, ...]:
        said = TextSegment(tuple(self.sampler.ids))
        return (*self.prompt.segments, said) if said.ids else self.prompt.segments

    def chunk(self, size: int) -> Tensor:
        """The next ``size`` embeddings of the prompt, or all the rest if that is little more."""
        assert self.slot is not None
        assert self._embeds is not None
        rest = self._embeds[len(self.slot.keys) - self._base :]
        # A small rest costs as much in a forward of its own as the whole of this one.
        return rest if len(rest) <= 1.5 * size else rest[:size]

    @property
    def prefilled(self) -> bool:
        """Whether the slot holds the whole prompt."""
        return self.slot is not None and len(self.slot.keys) >= len(self.keys)

    @property
    def last(self) -> int:
        """The token that decodes next."""
        return self.sampler.ids[-1]

    def advance(self, logits: Tensor, best: int | None) -> FinishReason | None:
        """Take the next token (``best`` if it was found for the whole batch). → why it ends."""
        if self.phase is not Phase.DECODE:
            self._lap("prefill")
            self.phase, self._embeds = Phase.DECODE, None
        token = self.sampler.choose(logits) if best is None else self.sampler.take(best)
        ended = token == self._model.tokenizer.end_id
        self._count_token()
        self._untold = token
        if self.request.sampling.stop:
            self.tell()  # only the text knows whether it goes on
        if ended or self._text.stopped:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.sampler.ids) >= self._limit else None

    def tell(self) -> None:
        """Send the token that :meth:`advance` took; apart, so that the device works meanwhile."""
        token, self._untold = self._untold, None
        if token is not None:
            piece = "" if token == self._model.tokenizer.end_id else self._text.push(token)
            self.put(piece, (token,), logprobs=tuple(self.sampler.logprobs[-1:]))

    def search(self, unit: Callable[[], None]) -> FinishReason:
        """LAVIS's beam search over the whole prompt; ``unit`` is called after each unit of work."""
        from instructblip.generation import GenerationParams, generate_from_embeddings

        assert self._embeds is not None
        p = self.request.sampling
        self.phase = Phase.DECODE
        # LAVIS counts its invisible start token in both lengths.
        params = GenerationParams(
            use_nucleus_sampling=p.temperature > 0, num_beams=p.num_beams, top_p=p.top_p,
            max_length=self._limit + 1, min_length=p.min_new_tokens + 1, seed=p.seed,
            repetition_penalty=p.repetition_penalty, length_penalty=p.length_penalty,
            temperature=p.temperature or 1.0,
        )  # fmt: skip

        def progress(done: int, most: int) -> None:
            self.put(progress=done / max(most, 1))
            unit()

        (ids,) = generate_from_embeddings(self._model, self._embeds, params, progress)
        self.sampler.ids = list(ids)
        self._count_token()
        ended = bool(ids) and ids[-1] == self._model.tokenizer.end_id
        self.put(self._model.tokenizer.decode(ids).strip(), ids)
        return FinishReason.STOP if ended else FinishReason.LENGTH

    def end(self, reason: FinishReason, error: Exception | None = None) -> FinishReason:
        """Send the last Delta, with the text that was held back, whatever befalls it. → why it ended."""
        piece = ""
        try:
            self.tell()
            piece = self._text.finish()
        except BaseException as fault:
            log.exception("request %s: its text failed", self.request.request_id)
            reason, error = FinishReason.ERROR, error or failed_inside(fault)
        self.phase = Phase.DONE
        try:
            self._last(piece, reason, error)
        except BaseException:
            log.exception("request %s: its end is told once more", self.request.request_id)
            self.abandon(reason, error)
        return reason

    def abandon(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Send the last Delta for an engine that cannot; safe from any thread, and never raises."""
        try:
            self._last("", reason, error)
        except BaseException:
            log.exception("request %s: its end could not be told", self.request.request_id)

    def _last(self, text: str, reason: FinishReason, error: Exception | None) -> None:
        self.stream.put(Delta(
            self.request.request_id, Phase.DONE, text, finish=reason, error=error,
            statistics=self._statistics, answer_ids=tuple(self.sampler.ids),
            qformer_text=self.prompt.qformer_text,
        ))  # fmt: skip

    def _count_token(self) -> None:
        now = time.monotonic()
        self._first = self._first or now
        self._statistics = replace(
            self._statistics, new_tokens=len(self.sampler.ids), decode=now - self._first,
            first_token=self._first - self._submitted,
        )  # fmt: skip

    def _lap(self, name: str) -> None:
        now = time.monotonic()
        spent = getattr(self._statistics, name) + now - self._mark
        self._statistics = replace(self._statistics, **{name: spent})  # type: ignore[arg-type]
        self._mark = now
