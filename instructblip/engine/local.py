"""The thread that owns the device; everything else talks to it through its waiting line."""

from __future__ import annotations

import threading
from typing import Any

import torch

from instructblip.conversation import ImageSegment, build_prompt
from instructblip.engine.answer import Answer
from instructblip.engine.base import ModelCard, Request
from instructblip.engine.kv_cache import Arena, CacheShape, rows_within
from instructblip.engine.pictures import Pictures
from instructblip.engine.scheduler import Scheduler
from instructblip.engine.steps import RaggedStep, StaticStep, Stepper
from instructblip.engine.stream import LocalStream
from instructblip.errors import Busy, EngineStopped, PromptTooLong
from instructblip.model import InstructBlip
from instructblip.spread import cache_memory


class LocalEngine:
    """An Engine over one model in this process.

    Args:
        model: a loaded model; the engine's thread is the only one that touches it afterwards.
        max_waiting: requests that may wait; one more raises Busy.
        slots: conversations whose keys and values are kept, at most.
        batch: requests that run at once, at most.
        kv_memory: bytes for keys and values; None takes a share of what is free.
        picture_memory: bytes for pictures' features and image tokens.
        static: the static step instead of the ragged one; None chooses by the device.

    Raises:
        OutOfMemory: the memory does not hold the keys and values of one conversation.
    """

    def __init__(
        self, model: InstructBlip, *, max_waiting: int = 64, slots: int = 16, batch: int = 16,
        kv_memory: int | None = None, static: bool | None = None, picture_memory: int = 2**28,
    ) -> None:  # fmt: skip
        self._model = model
        self._card = model.card()
        self._max_waiting = max_waiting
        self._pictures = Pictures(picture_memory)
        self._arena = arena = _arena(model, slots, kv_memory)
        static = model.device.type in ("cuda", "npu") if static is None else static
        stepper: Stepper = (StaticStep if static else RaggedStep)(model, arena)
        self._scheduler = Scheduler(model, arena, stepper, self._pictures, batch)
        self._changed = threading.Condition()
        self._arrivals: list[Answer] = []  # the scheduler's own line belongs to its thread
        self._closing = False
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
            if isinstance(segment, ImageSegment):
                self._pictures.require(segment.picture_id)
        if not request.question.strip():
            raise PromptTooLong("The question is empty. Type one.", code="question_empty")
        stream = LocalStream(request.request_id, on_cancel=self._notify)
        answer = Answer(request, prompt, stream, self._model, self._card.context_length)
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise EngineStopped("The engine is shutting down. Start the server again.")
            waiting = len(self._scheduler.waiting) + len(self._arrivals)
            if waiting >= self._max_waiting:
                said = f"{waiting} questions are waiting already. Ask again in a moment."
                raise Busy(said, waiting=waiting)
            answer.place = waiting + 1
            answer.estimate = self._scheduler.estimate(answer.place)
            answer.put()
            self._arrivals.append(answer)
            self._changed.notify_all()
        return stream

    def statistics(self) -> dict[str, Any]:
        """Counters by kind, bytes of caches, and the longest forward so far (Stop may wait for it)."""
        with self._changed:
            counts = self._scheduler.counts
            return {
                "waiting": len(self._scheduler.waiting) + len(self._arrivals),
                "running": len(self._scheduler.running),
                "units": {k[5:]: n for k, n in counts.items() if k.startswith("unit.")},
                "slots": self._arena.held,
                "slot_bytes": self._arena.nbytes(),
                "longest_unit": self._scheduler.longest_unit,
                "picture_bytes": self._pictures.nbytes,
                **{k: n for k, n in counts.items() if not k.startswith("unit.")},
            }

    def close(self, timeout: float = 3.0) -> None:
        """Stop the thread; running and waiting requests finish as CANCELLED."""
        self._closing = True
        self._notify()
        for answer in list(self._scheduler.running):  # a forward of theirs is not waited for
            answer.stream.cancelled.set()
        self._thread.join(timeout)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _loop(self) -> None:
        """Rounds until the end; a failure of the scheduler itself costs a restart, no answer."""
        scheduler = self._scheduler
        with torch.inference_mode():
            while self._wait_for_work():
                try:
                    scheduler.round()
                except BaseException as error:
                    scheduler.recover(error)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._arrivals or self._scheduler.waiting or self._scheduler.running):
                if self._closing:
                    return False
                self._changed.wait()
            self._scheduler.waiting.extend(self._arrivals)
            self._arrivals.clear()
        if self._closing:
            for answer in (*self._scheduler.waiting, *self._scheduler.running):
                answer.stream.cancelled.set()
        return True


def _arena(model: InstructBlip, slots: int, memory: int | None) -> Arena:
    shape, length = CacheShape.of(model.text_config), model.properties.context_length
    memory = cache_memory(model.layer_devices) if memory is None else memory
    rows = rows_within(memory, shape, length, model.dtype, slots)
    return Arena(shape, rows, length, model.dtype, model.layer_devices)
