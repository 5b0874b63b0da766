"""When the NPU fails: plain words for whoever asked, and a server that lives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.npu.simulated import Simulated

New = Callable[..., Simulated]


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("kernel", 507015, "AI core"),
        ("kernel", 507018, "AI CPU"),
        ("aclrtSynchronizeStream", 507014, "too long"),
        ("aclrtSynchronizeStream", 507899, "npu-smi info"),  # the device vanished
    ],
)
def test_a_device_that_fails_in_mid_stream(
    npu: Simulated, function: str, code: int, words: str
) -> None:
    said = npu.call("faults.broken", function, code)
    assert said["finish"] == "error"
    assert said["tokens"] >= 2
    assert said["error"].startswith("device: ")
    assert words in said["error"]
    assert str(code) in said["error"]
    assert "Traceback" not in said["error"]
    assert any(str(code) in line for line in said["logged"])  # the page refers to the log
    assert said["same_afterwards"]
    assert said["statistics"]["failed"] == 1


def test_out_of_memory_is_told_and_the_next_answer_is_whole(new_npu: New) -> None:
    said = new_npu(memory=256 << 20).call("faults.out_of_memory")
    assert said["finish"] == "error"
    assert said["error"].startswith("out_of_memory: ")
    assert said["after"] == 8
    assert said["statistics"]["out_of_memory"] >= 1


def test_weights_that_do_not_fit_are_refused_before_loading(new_npu: New) -> None:
    said = new_npu(memory=300 << 10).call("faults.too_small")
    assert said.startswith("out_of_memory: ")
    assert "npu" in said
