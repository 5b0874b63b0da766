"""A Run owns one answer: it carries the engine's stream into the store and to whoever looks on.

A Run outlives its page. The server cannot tell a closed tab from a reload or a lost link, so pages
attach and detach; when nobody has been attached for the grace period, the Run is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from instructblip.engine.base import (
    Delta,
    Engine,
    FinishReason,
    PastTurn,
    Phase,
    Request,
    SamplingParams,
    Statistics,
    Stream,
)
from instructblip.errors import BadRequest, InstructBlipError
from webui.bounds import Client
from webui.saving import Saving
from webui.sessions import Admission
from webui.store import Store, Turn

log = logging.getLogger(__name__)

UPDATES_PER_SECOND = 8
SAVE_EVERY = 0.5  # seconds between two writes of a running answer
SAVE_AGAIN = 5.0  # seconds between two tries to save what the store has not taken
FIRST_LOOK = 10.0  # seconds at least for the page that asked to attach, however short the grace
CLOSE_TIMEOUT = 1.5  # seconds the engine gets to end its answers when the server stops


@dataclass(frozen=True)
class Snapshot:
    """An answer at one moment. ``place`` is the place in the waiting line, 0 when served.

    ``due`` is the ``time.monotonic()`` at which it is expected to be served, 0 where that is not
    known; ``progress`` is the share of a beam search that is done.
    """

    turn_id: str
    text: str
    phase: str
    place: int
    finish: str | None
    error: Exception | None
    statistics: Statistics
    due: float = 0.0
    progress: float = 0.0


class Run:
    """One answer on its way. Made by :meth:`Runs.start`; lives on the server's event loop."""

    def __init__(
        self, owner: str, turn: Turn, stream: Stream, saving: Saving, grace: float
    ) -> None:
        self.turn_id = turn.id
        self.chat_id = turn.chat_id
        self.owner = owner
        self.snapshot = Snapshot(turn.id, "", Phase.WAITING.value, 0, None, None, Statistics())
        self._stream = stream
        self._saving = saving
        self._grace = grace
        self._ids: list[int] = []
        self._qformer_text = ""
        self._last: Snapshot | None = None
        self._attached = 0
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._start_grace(max(grace, FIRST_LOOK))

    @property
    def done(self) -> bool:
        """Whether the answer has ended, for whatever reason."""
        return self.snapshot.finish is not None

    def stop(self) -> None:
        """Ask the engine to stop within one unit of work. Safe from any thread."""
        self._stream.cancel()

    async def attach(self, heartbeat: float = 1.0) -> AsyncIterator[Snapshot]:
        """Yield the present state, then changes (at most 8 a second), then the final state.

        While nothing changes the present state is repeated every ``heartbeat`` seconds, so that a
        page that is gone is noticed.
        """
        self._attached += 1
        self._stop_grace()
        try:
            sent, at = self.snapshot, time.monotonic()
            yield sent
            while sent.finish is None:
                changed = self._changed
                if self.snapshot is sent:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), heartbeat)
                # The first words and the end are not held back.
                pause = at + 1 / UPDATES_PER_SECOND - time.monotonic()
                while pause > 0 and not self.done and (sent.text or not self.snapshot.text):
                    changed = self._changed
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), pause)
                    pause = at + 1 / UPDATES_PER_SECOND - time.monotonic()
                sent, at = self.snapshot, time.monotonic()
                yield sent
        finally:
            self._attached -= 1
            if self._attached == 0 and not self.done:
                self._start_grace(self._grace)

    # --- inside --------------------------------------------------------------------------------

    async def carry(self, tokenizer: str) -> None:
        """Read the stream to its end, saving on the way. Never raises.

        A store that takes nothing costs no words of the answer; its end says so.
        """
        saved = time.monotonic()
        last: Snapshot | None = None
        try:
            async for delta in self._stream:
                now = self._take(delta)
                if now.finish is not None:
                    last = now
                    break
                self.snapshot = now
                self._wake()
                if delta.text and time.monotonic() - saved >= SAVE_EVERY:
                    ids = list(self._ids)
                    await asyncio.to_thread(self._saving.part, self.turn_id, now.text, ids)
                    saved = time.monotonic()
            last = last or self._ended(FinishReason.ERROR.value, _silent_end())
        except asyncio.CancelledError:
            last = self._ended("interrupted", None)
        except Exception as error:
            log.exception("the stream of turn %s broke", self.turn_id)
            last = self._ended(FinishReason.ERROR.value, error)
            self.stop()  # if it was not the engine that failed, it need not go on
        self._last = last
        if last.finish == "interrupted":  # the server ends, and its threads may be taken
            self._save(last, tokenizer)
            return
        with suppress(asyncio.CancelledError):  # the thread saves it all the same
            await asyncio.to_thread(self._save, last, tokenizer)

    def announce(self) -> None:
        """Tell whoever is attached that the answer has ended; it is saved by now."""
        self.snapshot = self._last or self._ended("interrupted", None)
        self._stop_grace()
        self._wake()

    def _take(self, delta: Delta) -> Snapshot:
        if delta.finish is not None:
            self._qformer_text = delta.qformer_text
        if delta.finish is not None and delta.answer_ids:
            self._ids = list(delta.answer_ids)
        else:
            self._ids.extend(delta.token_ids)
        return Snapshot(
            self.turn_id,
            self.snapshot.text + delta.text,
            delta.phase.value,
            delta.place,
            delta.finish.value if delta.finish is not None else None,
            delta.error or (_silent_end() if delta.finish == FinishReason.ERROR else None),
            delta.statistics,
            due=time.monotonic() + delta.estimate if delta.estimate > 0 else 0.0,
            progress=delta.progress,
        )

    def _ended(self, finish: str, error: Exception | None) -> Snapshot:
        now = self.snapshot
        return Snapshot(self.turn_id, now.text, Phase.DONE.value, 0, finish, error, now.statistics)

    def _save(self, last: Snapshot, tokenizer: str) -> None:
        unsaved = self._saving.whole(
            self.turn_id,
            finish=last.finish or FinishReason.ERROR.value,
            answer=last.text,
            answer_ids=self._ids,
            qformer_text=self._qformer_text,
            tokenizer=tokenizer,
            statistics=statistics_dict(last.statistics),
            **_told(last.error),
        )
        if unsaved is not None and last.error is None:
            self._last = replace(last, finish=FinishReason.ERROR.value, error=unsaved)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _start_grace(self, seconds: float) -> None:
        self._stop_grace()
        self._timer = self._loop.call_later(seconds, self.stop)

    def _stop_grace(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Runs:
    """All running answers of this server."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        grace: float = 20.0,
        admission: Admission | None = None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.grace = grace
        self.admission = admission or Admission()
        self.saving = Saving(store)
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.Task[None] | None = None

    def admit(self, client: Client, chat_id: str) -> None:
        """Check that this client may start an answer in this chat now; reserves nothing.

        Raises:
            Busy: ``busy_chat`` (one answer at a time in a chat), ``busy_owner``, ``busy_answers``
                (the address), ``busy_answers_all``.
        """
        self.admission.check(client, chat_id)

    async def start(
        self,
        owner: str,
        turn: Turn,
        sampling: SamplingParams | None = None,
        layout: str | None = None,
        client: Client | None = None,
    ) -> Run:
        """Submit a stored turn to the engine.

        A turn that the engine does not accept is taken out of the store again, so that the page
        can keep the typed text and nothing is left behind. ``client``: whom the bounds count.

        Raises:
            Busy: the waiting line is full, or this owner or chat has a running answer.
            BadRequest: the engine refuses the request.
            EngineStopped: the engine is not running.
        """
        try:
            self.admission.enter(client or Client(owner), turn.chat_id, turn.id)
            try:
                request = await asyncio.to_thread(
                    self._request, owner, turn, sampling or self.engine.card.generation, layout
                )
                stream = self.engine.submit(request)
            except BaseException:
                self.admission.leave(turn.id)
                raise
        except BaseException:
            try:
                self.store.drop_turn(owner, turn.id)
            except Exception:  # why the turn was not accepted is what counts
                log.exception("turn %s could not be taken back", turn.id)
            raise
        run = Run(owner, turn, stream, self.saving, self.grace)
        self._runs[turn.id] = run
        task = asyncio.create_task(self._carry(run), name=f"run {turn.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    def find(self, turn_id: str) -> Run | None:
        """The running answer of this turn, if there is one."""
        return self._runs.get(turn_id)

    def path_to(self, owner: str, turn_id: str) -> list[Turn]:
        """As :meth:`Store.path_to`, with the answers that the store has not taken yet."""
        return [self.saving.shown(turn) for turn in self.store.path_to(owner, turn_id)]

    def running(self, owner: str) -> list[Run]:
        """The owner's running answers."""
        return [run for run in list(self._runs.values()) if run.owner == owner]

    def __len__(self) -> int:
        return len(self._runs)

    async def close(self) -> None:
        """Stop all answers and save what was generated. Returns in about 1.5 s at most."""
        for run in list(self._runs.values()):
            run.stop()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=CLOSE_TIMEOUT)
            for task in late:  # an engine that does not answer: save what we have
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=0.5)
        if self._again is not None:
            self._again.cancel()
            self.saving.again()

    # --- inside --------------------------------------------------------------------------------

    async def _carry(self, run: Run) -> None:
        try:
            await run.carry(self.engine.card.tokenizer)
        finally:
            self.admission.leave(run.turn_id)
            self._runs.pop(run.turn_id, None)
            run.announce()
        if len(self.saving) and (self._again is None or self._again.done()):
            self._again = asyncio.create_task(self._save_again(), name="saving again")

    async def _save_again(self) -> None:
        while len(self.saving):
            await asyncio.sleep(SAVE_AGAIN)
            await asyncio.to_thread(self.saving.again)

    def _request(
        self, owner: str, turn: Turn, sampling: SamplingParams, layout: str | None
    ) -> Request:
        history = [
            _past(earlier)
            for earlier in self.path_to(owner, turn.id)[:-1]
            if earlier.readable and (earlier.answer_ids or earlier.answer)
        ]
        self._register(owner, turn.picture_id)
        for picture_id in {past.picture_id for past in history}:
            try:
                self._register(owner, picture_id)
            except BadRequest as error:  # the file is lost or damaged
                log.warning("turns about the picture %s are left out: %s", picture_id, error)
                history = [past for past in history if past.picture_id != picture_id]
        return Request(
            request_id=turn.id,
            question=turn.question,
            picture_id=turn.picture_id,
            history=tuple(history),
            sampling=sampling.checked(),
            layout=layout,
            session_id=turn.chat_id,
        )

    def _register(self, owner: str, picture_id: str) -> None:
        if not self.engine.has_picture(picture_id):
            data = self.store.picture_bytes(owner, picture_id)
            self.engine.register_picture(picture_id, data)


def statistics_dict(statistics: Statistics) -> dict[str, float]:
    """Statistics as they are stored with a turn, decode speed included."""
    return {**asdict(statistics), "tokens_per_second": statistics.tokens_per_second}


def _past(turn: Turn) -> PastTurn:
    values: dict[str, Any] = {
        "turn_id": turn.id,
        "question": turn.question,
        "picture_id": turn.picture_id,
        "answer_ids": turn.answer_ids,
        "answer": turn.answer,
        # A killed server saved no Q-Former text; the question is what it read.
        "qformer_text": turn.qformer_text or turn.question,
        "tokenizer": turn.tokenizer,
    }
    return PastTurn(**values)


def _told(error: Exception | None) -> dict[str, Any]:
    """What is stored of an error. Other libraries' errors have codes and values of their own."""
    if error is None:
        return {}
    if isinstance(error, InstructBlipError):
        return {"error": str(error), "error_code": error.code, "error_values": error.values}
    return {"error": type(error).__name__, "error_code": "internal"}


def _silent_end() -> InstructBlipError:
    return InstructBlipError(
        "The engine ended this answer without saying why. Ask again; if it happens again, restart "
        "the server.",
        code="silent_end",
    )
