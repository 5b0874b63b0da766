"""8-bit weights: the NPU's own operator runs them, and the tokens are the CPU's."""

from __future__ import annotations

import pytest

from tests.npu.simulated import Simulated


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_three_turns_are_the_cpus(npu: Simulated, dtype: str) -> None:
    answers = npu.call("quantised.three_turns", "append", dtype)
    assert answers["npu"] == answers["cpu"]
    assert len({tuple(ids) for ids in answers["npu"]}) == 3
    assert answers["ran"]
    assert answers["kinds"] == ["Int8Linear"]


def test_in_fp32_which_the_operator_does_not_take_they_are_plain(npu: Simulated) -> None:
    answers = npu.call("quantised.three_turns", "append", "fp32")
    assert answers["npu"] == answers["cpu"]
    assert not answers["ran"]
    assert answers["kinds"] == ["Linear"]


def test_without_the_operator_they_are_plain(npu: Simulated) -> None:
    answers = npu.call("quantised.refused", "fp16")
    assert answers["npu"] == answers["cpu"]
    assert not answers["ran"]
    assert answers["kinds"] == ["Linear"]


def test_merged_weights_are_one_matmul_and_held_once(npu: Simulated) -> None:
    # Levels and scales have a storage each.
    assert npu.call("quantised.merged") == {
        "qkv": ["Int8Linear", 3 * 128, 2], "gate_up": ["Int8Linear", 2 * 256, 2]
    }  # fmt: skip


@pytest.mark.parametrize(("dtype", "about"), [("fp16", 2e-2), ("bf16", 2e-1)])
def test_the_operator_equals_its_reference(npu: Simulated, dtype: str, about: float) -> None:
    assert npu.call("quantised.difference", dtype) < about
