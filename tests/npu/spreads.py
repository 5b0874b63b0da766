"""Cases of one model over two simulated NPUs."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import instructblip
from instructblip import cli
from instructblip.doctor import examine
from instructblip.errors import InstructBlipError
from tests.npu import chats
from tests.npu.compute import crossed
from tests.tiny import make_checkpoint

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
    """Where all parts lie, and the copies from device to device of an answer."""
    with chats.engine(BOTH, static=True) as made:
        crossed.clear()
        deltas = made.submit(chats.request(chats.QUESTIONS[0], max_new_tokens=3))
        assert list(deltas)[-1].error is None
        copies = list(map(">".join, crossed))
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


def kind(which: str, dtype: str) -> dict[str, Any]:
    """Answers of a checkpoint of int4 or int8 weights, or with a head that is the embeddings' table."""
    folder = make_checkpoint(
        Path(tempfile.mkdtemp()) / "wide", properties=dict(chats.PROPERTIES), width=128
    )
    if which == "tied":
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["text_config"]["tie_word_embeddings"] = True
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
    else:
        folder, whole = folder.with_name("quantised"), folder
        cli.main(["convert", "--model", str(whole), "--out", str(folder), "--quantize", which])
    picture, answers = Image.new("RGB", (40, 30), (30, 90, 200)), dict[str, Any]()
    for device in (BOTH, "cpu"):
        model = instructblip.load(folder, device=device, dtype=dtype)
        answers[device[:3]] = model.generate([picture], chats.QUESTIONS[0], max_length=8)
        answers["devices"] = [*answers.get("devices", []), len(model.devices)]
    return answers
