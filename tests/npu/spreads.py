"""Cases of one model over two simulated NPUs."""

from __future__ import annotations

import os
from typing import Any

import torch

import instructblip
from instructblip.doctor import examine
from instructblip.errors import InstructBlipError
from tests.npu import chats
from tests.npu.compute import crossed

BOTH = "npu:0,npu:1"
SIZE = "SIMULATED_NPU_MEMORY"


def chat(case: str, *args: Any) -> dict[str, Any]:
    """A case of :mod:`tests.npu.chats`, over both NPUs instead of one."""
    one, chats.DEVICES = chats.DEVICES, (BOTH, "cpu")
    try:
        answers = getattr(chats, case)(*args)
    finally:
        chats.DEVICES = one
    return {"npu": answers[BOTH], "cpu": answers["cpu"]}


def held() -> dict[str, Any]:
    """Where all parts lie, and the copies from device to device up to each token."""
    with chats.engine(BOTH, static=True) as made:
        crossed.clear()
        deltas = made.submit(chats.request(chats.QUESTIONS[0], max_new_tokens=3))
        copies = [list(map(">".join, crossed)) for delta in deltas if delta.token_ids]
        named = list(made._model.weights.named_parameters())
        return {
            "layers": [
                sorted({str(p.device) for name, p in named if f".layers.{n}." in name and
                        name.startswith("language_model")}) for n in range(3)
            ],
            "before": sorted({str(p.device) for name, p in named if
                              not name.startswith("language_model") or "embed" in name}),
            "keys": [str(t.device) for t in made._arena.keys],
            "values": [str(t.device) for t in made._arena.values],
            "card": made.card.device, "copies": copies, "current": torch.npu.current_device(),
        }  # fmt: skip


def refused(device: str, free: int | None = None) -> str:
    """What loading says; ``free``: bytes that are free on the fuller device."""
    torch.npu.empty_cache()
    used = max(whole - left for left, whole in (torch.npu.mem_get_info(n) for n in range(2)))
    if free is not None:  # the simulated device reads its size each time
        os.environ[SIZE] = str(used + free)
    try:
        instructblip.load(chats.folder(), device=device, dtype="fp32")
    except InstructBlipError as error:
        return f"{type(error).__name__} {error.code}: {error}"
    finally:
        os.environ.pop(SIZE, None)
    return ""


def doctor() -> list[str]:
    """What doctor finds."""
    return [str(finding) for finding in examine(chats.folder(), device=BOTH)]


def mixed() -> None:
    """One call with tensors of two devices."""
    torch.ones(2, device="npu:0") + torch.ones(2, device="npu:1")
