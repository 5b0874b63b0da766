"""8-bit weights: the NPU's own operator runs them, and the tokens are the CPU's."""

from __future__ import annotations

import pytest

from tests.npu.simulated import Simulated

TIE = 0.02  # of logits around 2, where numbers in bf16 are 0.016 apart


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_three_turns_are_the_cpus(npu: Simulated, dtype: str) -> None:
    answers = npu.call("quantised.three_turns", "append", dtype)
    npu_ids, cpu_ids = ([i for turn in answers[d] for i in turn] for d in ("npu", "cpu"))
    pairs = enumerate(zip(npu_ids, cpu_ids, strict=True))
    unlike = next((n for n, (one, other) in pairs if one != other), None)
    if unlike is not None:  # a tie of two tokens; what follows it hangs on which was said
        best, lead = answers["best"][unlike]
        assert dtype == "bf16"
        assert set(best) == {npu_ids[unlike], cpu_ids[unlike]}
        assert lead < TIE
        assert unlike > 16  # two turns are the same at least
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
