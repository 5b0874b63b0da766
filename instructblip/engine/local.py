"""The thread that owns the device: one request at a time, in units of work.

After each unit (a ViT encode, a Q-Former call, a prefill chunk, a decode step) the thread reads
the request's stop flag and its deadline. Everything else talks to it through queues.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from typing import Any

import torch

from instructblip.conversation import build_prompt
from instructblip.devices import as_device_error, release_memory
from instructblip.engine.answer import Answer, Interrupted
from instructblip.engine.base import FinishReason, ModelCard, PastTurn, Phase, Request
from instructblip.engine.kv_cache import SlotPool
from instructblip.engine.pictures import Pictures
from instructblip.engine.stream import LocalStream
from instructblip.errors import Busy, EngineStopped, InstructBlipError, PromptTooLong
from instructblip.model import InstructBlip

log = logging.getLogger(__name__)


class LocalEngine:
    """An Engine over one model in this process.

    Args:
        model: a loaded model; the engine's thread is the only one that touches it afterwards.
        max_waiting: requests that may wait; one more raises Busy.
        slots: conversations whose keys and values are kept for their next turn.
    """

    def __init__(self, model: InstructBlip, *, max_waiting: int = 64, slots: int = 8) -> None:
        self._model = model
        self._card = make_card(model)
        self._max_waiting = max_waiting
        self._pictures = Pictures()
        self._slots = SlotPool(model.text_config.num_hidden_layers, slots)
        self._waiting: deque[Answer] = deque()
        self._running: Answer | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    @property
    def card(self) -> ModelCard:
        """What a page tells about the model."""
        return self._card

    def register_picture(self, picture_id: str, data: bytes) -> None:
        """Hand over a picture's bytes under its id."""
        self._pictures.register(picture_id, data)

    def has_picture(self, picture_id: str) -> bool:
        """Whether the bytes of this picture are still held."""
        return picture_id in self._pictures

    def submit(self, request: Request) -> LocalStream:
        """Queue a request; its prompt is laid out, and so refused, at once."""
        request.sampling.checked()
        prompt = build_prompt(request, self._model.properties, self._model.vocabulary)
        for segment in prompt.segments:
            if hasattr(segment, "picture_id"):
                self._pictures.require(segment.picture_id)
        self._require_question(request)
        stream = LocalStream(request.request_id, on_cancel=self._notify)
        answer = Answer(request, prompt, stream, self._card.context_length)
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise EngineStopped("The engine is shutting down. Start the server again.")
            if len(self._waiting) >= self._max_waiting:
                raise Busy(
                    f"{len(self._waiting)} questions are waiting already. Ask again in a moment.",
                    waiting=len(self._waiting),
                )
            self._waiting.append(answer)
            self._tell_places()
            self._changed.notify_all()
        return stream

    @staticmethod
    def _require_question(request: Request) -> None:
        if not request.question.strip():
            raise PromptTooLong("The question is empty. Type one.", code="question_empty")

    def statistics(self) -> dict[str, Any]:
        """Counters: waiting, running, served, cancelled, failed, units by kind, bytes of caches."""
        with self._changed:
            units = {k[5:]: n for k, n in self._counts.items() if k.startswith("unit.")}
            ended = {k: n for k, n in self._counts.items() if not k.startswith("unit.")}
            return {
                "waiting": len(self._waiting),
                "running": int(self._running is not None),
                "units": units,
                "slots": len(self._slots),
                "slot_bytes": self._slots.nbytes(),
                "picture_bytes": self._pictures.nbytes,
                **ended,
            }

    def close(self, timeout: float = 3.0) -> None:
        """Stop the thread; running and waiting requests finish as CANCELLED."""
        with self._changed:
            self._closing = True
            for answer in (*self._waiting, *([self._running] if self._running else [])):
                answer.stream.cancelled.set()
            self._changed.notify_all()
        self._thread.join(timeout)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _tell_places(self) -> None:
        """Tell each waiting request its place; 1 is served next."""
        for place, answer in enumerate(self._waiting, start=1):
            if answer.place != place:
                answer.place = place
                answer.put(Phase.WAITING)

    def _loop(self) -> None:
        with torch.inference_mode():
            while (answer := self._next()) is not None:
                self._serve(answer)
                with self._changed:
                    self._running = None

    def _next(self) -> Answer | None:
        with self._changed:
            while True:
                self._drop_stopped()
                if self._waiting:
                    self._running = self._waiting.popleft()
                    self._running.place = 0
                    self._tell_places()
                    return self._running
                if self._closing:
                    return None
                # Deadlines of waiting requests are read at least twice a second.
                self._changed.wait(0.5 if self._waiting else None)

    def _drop_stopped(self) -> None:
        """Waiting requests that were stopped leave the line at once."""
        for answer in [a for a in self._waiting if a.interrupted()]:
            self._waiting.remove(answer)
            self._end(answer, answer.interrupted() or FinishReason.CANCELLED)
        self._tell_places()

    def _serve(self, answer: Answer) -> None:
        answer.started()
        try:
            self._end(answer, self._answer(answer))
        except Interrupted as stop:
            self._end(answer, stop.reason)
        except Exception as error:
            typed: InstructBlipError | None = as_device_error(error)
            if typed is not None:
                self._slots.clear()
                release_memory(self._model.device)
            elif not isinstance(error, InstructBlipError):
                log.exception("request %s failed", answer.request.request_id)
                typed = InstructBlipError(
                    f"The answer failed inside the engine ({type(error).__name__}: {error}). "
                    "Ask again; the server's log has the details.",
                    code="internal",
                )
            self._end(answer, FinishReason.ERROR, typed or error)

    def _answer(self, answer: Answer) -> FinishReason:
        def unit(kind: str) -> None:
            self._counts[f"unit.{kind}"] += 1
            self._drop_stopped_politely()
            answer.check()

        embeds = [self._embed(segment, unit) for segment in answer.prompt.segments]
        slot, reused = self._slots.take(keys := answer.prompt.keys())
        answer.prefilling(reused)
        try:
            logits = answer.prefill(self._model, torch.cat(embeds), slot, keys, unit)
            return answer.decode(self._model, logits, slot, unit)
        except Interrupted:
            raise
        except BaseException:
            self._slots.drop(slot)  # a failed forward may have written some layers only
            raise

    def _embed(self, segment: Any, unit: Any) -> torch.Tensor:
        if not hasattr(segment, "picture_id"):
            return self._model.embed(segment.ids)
        turn = PastTurn("", "", segment.picture_id, (), "", segment.qformer_text)
        return self._pictures.tokens(self._model, turn, unit)

    def _drop_stopped_politely(self) -> None:
        """Between units, let stopped waiting requests go, so that others see their place move."""
        if any(a.stream.cancelled.is_set() for a in tuple(self._waiting)):
            with self._changed:
                self._drop_stopped()

    def _end(self, answer: Answer, reason: FinishReason, error: Exception | None = None) -> None:
        self._counts["failed" if error else str(reason)] += 1
        answer.end(reason, error)


def make_card(model: InstructBlip) -> ModelCard:
    """The model card of a loaded model."""
    p = model.properties
    return ModelCard(
        name=p.name,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        licence=p.licence,
        default_layout=p.default_layout,
        layouts=p.layouts,
        context_length=p.context_length,
        image_size=p.image_size,
        tokenizer=model.vocabulary.fingerprint,
        languages=p.languages,
        world=p.world,
        can_ask=p.can_ask,
        refusals=p.refusals,
        generation=p.generation,
        scenes=p.scenes,
    )
