"""Kernel launches and memory at the size of InstructBLIP-Vicuna-7B; README.md has the table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.npu.simulated import Simulated

TABLE = Path(__file__).with_name("README.md")
# Bytes of a card, from Huawei's data sheets: Atlas 800T A2 (910B3), Atlas 300I Duo (310P3, a chip).
MEMORY = {"Ascend910B3": 64 << 30, "Ascend310P3": 48 << 30}
CARD = 32 << 30  # of a card that does not hold the 13B model
PHASES = {
    "decode, batch 1": ("decode", 1), "decode, batch 8": ("decode", 8),
    "prefill, 160 positions": ("prefill",), "ViT, a picture": ("vit",),
    "Q-Former, an instruction": ("query",),
    "sampling, batch 1": ("sampling", 1), "sampling, batch 8": ("sampling", 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def chips() -> Iterator[dict[str, Simulated]]:
    """Both chips: they compute nothing and count. They start together, as most of it is imports."""
    made = {
        soc: Simulated(trace=True, soc=soc, memory=memory, count=2)
        for soc, memory in MEMORY.items()
    }
    yield made
    for process in made.values():
        process.end()


@pytest.fixture(params=MEMORY)
def traced(request: pytest.FixtureRequest, chips: dict[str, Simulated]) -> tuple[str, Simulated]:
    """One of them, by name."""
    return request.param, chips[request.param]


def table(soc: str, *, fused: bool) -> dict[str, int]:
    """Launches of a chip in the README's table: phase → count."""
    text = TABLE.read_text("utf-8")
    (head,) = re.findall(r"^\| phase \| (.+) \|$", text, re.M)
    chip = soc.removeprefix("Ascend")
    column = head.split(" | ").index(chip if fused else f"{chip} before")
    rows = re.findall(r"^\| ([^|]+) \| (\d+(?: \| \d+){3}) \|$", text, re.M)
    return {phase: int(counts.split(" | ")[column]) for phase, counts in rows}


def test_launches_are_those_of_the_table_and_no_operator_is_compiled(
    traced: tuple[str, Simulated],
) -> None:
    soc, npu = traced
    counts = {
        phase: sum(npu.call(f"trace.{function}", *args).values())
        for phase, (function, *args) in PHASES.items()
    }
    assert counts == table(soc, fused=True), f"{soc}: {counts}"
    memory = npu.call("trace.memory")
    assert memory["old_style"] == {}
    assert memory["weights"] < memory["peak"] < memory["total"] == MEMORY[soc]


def test_decoding_stays_under_400_launches_and_under_560_without_fused_attention(
    traced: tuple[str, Simulated],
) -> None:
    soc, npu = traced
    step = npu.call("trace.decode", 1)
    if soc == "Ascend910B3":
        assert sum(step.values()) < 400
        assert step["aclnnFlashAttentionScore"] == 32
    else:
        assert sum(step.values()) < 560
        assert "aclnnFlashAttentionScore" not in step


def test_a_merged_linear_of_eight_bits_is_one_launch(traced: tuple[str, Simulated]) -> None:
    _, npu = traced
    for rows in (1, 200):
        assert npu.call("trace.eight_bits", "float16", rows) == {"aclnnWeightQuantBatchMatmulV2": 1}


def test_launches_before_fusing_are_those_of_the_table(traced: tuple[str, Simulated]) -> None:
    soc, npu = traced
    counts = {
        phase: sum(npu.call("trace.before", *call).values()) for phase, call in PHASES.items()
    }
    assert counts == table(soc, fused=False), f"{soc}: {counts}"


def test_13b_over_two_cards_of_32_gigabytes(traced: tuple[str, Simulated]) -> None:
    _, npu = traced
    said = npu.call("trace.spread", CARD)
    assert said["layers"] == ["npu:0"] * 18 + ["npu:1"] * 22
    assert said["conversations"] == 16
    assert all(h < p < CARD for h, p in zip(said["held"], said["peaks"], strict=True)), said
    assert (said["hidden"], said["logits"]) == ("npu:1", "npu:0")
    first, second = said["launched"]  # of a step: each kernel runs where its layer lies
    assert 0.5 < second / (first + second) < 0.6
