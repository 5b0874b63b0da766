"""The whole path on device npu gives the CPU's tokens, with every CPU fallback forbidden."""

from __future__ import annotations

import pytest

from tests.npu.simulated import Simulated


def same(answers: dict[str, object]) -> None:
    """What the NPU said is what the CPU said, and it is not all one token."""
    assert answers["npu"] == answers["cpu"]


def test_features_and_image_tokens_are_the_cpus(npu: Simulated) -> None:
    assert npu.call("chats.encodings") == pytest.approx({"vit": 0, "query": 0}, abs=1e-5)


@pytest.mark.parametrize("layout", ["refresh", "keep", "append"])
def test_three_turns_in_a_layout(npu: Simulated, layout: str) -> None:
    answers = npu.call("chats.three_turns", layout)
    same(answers)
    assert len({tuple(ids) for ids in answers["npu"]}) == 3


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_three_turns_in_half_precision(npu: Simulated, dtype: str) -> None:
    same(npu.call("chats.three_turns", "append", dtype))


def test_a_ragged_batch_through_the_static_step(npu: Simulated) -> None:
    answers = npu.call("chats.ragged_batch")
    same(answers)
    assert [len(ids) for ids in answers["npu"]] == [4, 5, 6, 7, 8, 9]


def test_sampling_by_seed(npu: Simulated) -> None:
    answers = npu.call("chats.sampled")
    (ids, logprobs), (cpu_ids, cpu_logprobs) = answers["npu"], answers["cpu"]
    assert ids == cpu_ids
    assert logprobs == pytest.approx(cpu_logprobs, abs=2e-3)


def test_beams(npu: Simulated) -> None:
    same(npu.call("chats.beams"))


def test_generate_and_predict_class_as_a_library(npu: Simulated) -> None:
    same(npu.call("chats.generated"))


def test_tokens_come_one_by_one_from_the_engines_thread(npu: Simulated) -> None:
    said = npu.call("chats.from_a_thread")
    assert said == {"pieces": 8, "longest": 1, "device": "npu:0"}


def test_stop_ends_an_answer_and_the_next_one_is_whole(npu: Simulated) -> None:
    said = npu.call("chats.cancelled")
    assert said["finish"] == "cancelled"
    assert said["tokens"] < 20
    assert said["after"] == 8


def test_unloading_gives_the_memory_back(npu: Simulated) -> None:
    held = npu.call("chats.unloaded")
    assert held["loaded"] > held["before"] + 100_000
    assert held["after"] == held["before"]


def test_a_copy_that_nobody_waits_for_is_stale(npu: Simulated) -> None:
    seen = npu.call("chats.deferred")
    assert seen == {"early": [0.0] * 4, "late": [3.0] * 4}
