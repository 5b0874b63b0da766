"""How answers get into the store, and where they stay while it takes none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from instructblip.errors import InstructBlipError
from webui.disk import as_disk_error
from webui.records import Turn
from webui.store import Store

log = logging.getLogger(__name__)

KEPT = 1000  # answers that wait for the store, at most: some 20 MB


class Saving:
    """Writes answers. What the store does not take is shown from memory and tried again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refused = False  # the last write: the log has it, and need not have each after it
        self._kept: dict[str, tuple[dict[str, Any], InstructBlipError]] = {}

    def __len__(self) -> int:
        """Answers that have ended and are not saved."""
        return len(self._kept)

    def part(self, turn_id: str, text: str, ids: Sequence[int]) -> None:
        """Save what a running answer has come to. Never raises: its end may still be saved."""
        try:
            self._store.write_answer(turn_id, text, ids)
        except Exception as error:
            self._note(turn_id, error)
        else:
            self._refused = False

    def whole(self, turn_id: str, **values: Any) -> InstructBlipError | None:
        """Save an answer that has ended, as :meth:`Store.finish_turn` takes it. Never raises.

        → None, or what to tell those who look on: it is kept here, and not saved.
        """
        try:
            self._store.finish_turn(turn_id, **values)
        except Exception as error:
            self._note(turn_id, error)
            told = _unsaved(error)
            self._kept[turn_id] = values, told
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
            return told
        self._refused = False
        return None

    def again(self) -> None:
        """Try the answers that are kept; the first that is not taken ends the try. Never raises."""
        for turn_id, (values, _) in list(self._kept.items()):
            try:
                self._store.finish_turn(turn_id, **values)
            except Exception:
                return
            self._kept.pop(turn_id, None)
        if self._refused:
            self._refused = False
            log.warning("the store takes answers again; those that waited are saved")

    def shown(self, turn: Turn) -> Turn:
        """The turn as it is stored, or as it ended where that could not be."""
        if turn.id not in self._kept:
            return turn
        values, told = self._kept[turn.id]
        if values["finish"] != "error":  # else it has an error to show already
            told_values = {"error": str(told), "error_code": told.code, "error_values": {}}
            values = {**values, "finish": "error", **told_values}
        return replace(turn, **{**values, "answer_ids": tuple(values["answer_ids"])})

    def _note(self, turn_id: str, error: Exception) -> None:
        known = isinstance(error, InstructBlipError)
        if not (known and self._refused):
            trace = None if known else error
            log.error("the answer of turn %s is not saved: %s", turn_id, error, exc_info=trace)
        self._refused = True


def _unsaved(error: Exception) -> InstructBlipError:
    typed = error if isinstance(error, InstructBlipError) else as_disk_error(error)
    if typed is not None and typed.code == "store_full":
        return InstructBlipError(
            "The disk is full: this answer is not saved. It is as soon as there is room; until "
            "then it is lost if the server stops.",
            code="unsaved_full",
        )
    return InstructBlipError(
        "The answer could not be saved yet. The server tries again; its log says why.",
        code="unsaved",
    )
