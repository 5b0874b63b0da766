"""Cases that look at the device layer or break the device."""

from __future__ import annotations

import logging
from typing import Any

import torch

from instructblip.engine.base import Delta
from instructblip.errors import InstructBlipError
from tests.npu import chats
from tests.npu.compute import runtime


def second_device() -> dict[str, Any]:
    """A chat on npu:1, and how much each device ever held."""
    answers: dict[str, Any] = {}
    for device in ("npu:1", "cpu"):
        with chats.engine(device, static=True) as made:
            asked = chats.request(chats.QUESTIONS[0], repetition_penalty=1.5)
            answers[device[:3]] = chats.last(made.submit(asked)).answer_ids
            if device != "cpu":
                answers["device"] = made.card.device
                answers["current"] = torch.npu.current_device()
    answers["peaks"] = [runtime.simulation_peak(n) for n in range(2)]
    return answers


def broken(function: str, code: int, before: int = 2) -> dict[str, Any]:
    """A device that fails in mid-stream after ``before`` tokens, and is well again afterwards."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("instructblip").addHandler(handler)
    with chats.engine("npu", static=True) as made:
        want = chats.last(made.submit(chats.request(chats.QUESTIONS[1]))).answer_ids
        seen, end = 0, None
        for end in made.submit(chats.request(chats.QUESTIONS[0], max_new_tokens=200)):
            seen += len(end.token_ids)
            if seen == before:
                runtime.simulation_fault(function.encode(), code)
        runtime.simulation_fault(function.encode(), 0)
        assert isinstance(end, Delta)
        after = chats.last(made.submit(chats.request(chats.QUESTIONS[1]))).answer_ids
        return {
            "finish": str(end.finish), "tokens": seen, "same_afterwards": after == want,
            "error": f"{getattr(end.error, 'code', '')}: {end.error}",
            "statistics": made.statistics(), "logged": said,
        }  # fmt: skip


def out_of_memory() -> dict[str, Any]:
    """A chat while something else holds every byte of the device, and one after."""
    with chats.engine("npu", static=True) as made:
        hogs = _fill()
        end = list(made.submit(chats.request(chats.QUESTIONS[0])))[-1]
        hogs.clear()
        torch.npu.empty_cache()
        after = chats.last(made.submit(chats.request(chats.QUESTIONS[1])))
        return {
            "error": f"{getattr(end.error, 'code', '')}: {end.error}", "finish": str(end.finish),
            "after": len(after.answer_ids), "statistics": made.statistics(),
        }  # fmt: skip


def _fill() -> list[torch.Tensor]:
    """Take all memory of the device, in ever smaller pieces."""
    hogs, size = [], torch.npu.mem_get_info()[0]
    while size >= 512:
        try:
            hogs.append(torch.empty(size, dtype=torch.uint8, device="npu"))
        except torch.OutOfMemoryError:
            size //= 2
    return hogs


def too_small() -> str:
    """What loading says on a device with less memory than the weights take."""
    try:
        chats.load("npu")
    except InstructBlipError as error:
        return f"{error.code}: {error}"
    return "loaded"
