"""Each fused operator of the NPU equals its plain reference, and is really the one that runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.npu.simulated import Simulated

ABOUT = {"fp32": 1e-5, "fp16": 2e-2, "bf16": 1e-1}


@pytest.mark.parametrize("dtype", ABOUT)
def test_norms_rotary_embedding_and_swiglu(npu: Simulated, dtype: str) -> None:
    for name, difference in npu.call("fusions.differences", dtype).items():
        assert difference < ABOUT[dtype], name


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_attention_with_one_bool_mask(
    npu: Simulated, dtype: str, masked: bool, groups: int
) -> None:
    assert npu.call("fusions.attention", dtype, masked, groups) < ABOUT[dtype]


def test_merged_weights_are_held_once_and_keep_their_names(npu: Simulated) -> None:
    said = npu.call("fusions.merged_layers")
    assert said["classes"] == ["FusedLayer", "FusedAttention", "FusedMLP", "FusedNorm"]
    assert said["views"]
    assert said["in_files"] == []


def test_cached_blocks_go_back_to_the_device(npu: Simulated) -> None:
    held = npu.call("fusions.released")
    assert held["after"] <= held["before"] - (8 << 20)


def test_a_chip_without_fused_attention_writes_it_out(new_npu: Callable[..., Simulated]) -> None:
    npu = new_npu(soc="Ascend310P3")
    for masked, groups in itertools.product((True, False), (1, 2)):
        assert npu.call("fusions.attention", "fp16", masked, groups) < ABOUT["fp16"]
    answers = npu.call("chats.three_turns", "append", "fp16")
    assert answers["npu"] == answers["cpu"]
