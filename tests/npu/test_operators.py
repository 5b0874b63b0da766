"""Which operators run on the NPU: a list that only grows on purpose, and no CPU fallback."""

from __future__ import annotations

from pathlib import Path

from tests.npu.simulated import Simulated

LIST = Path(__file__).with_name("operators.txt")


def test_the_operators_are_those_of_the_list(npu: Simulated) -> None:
    listed = {line for line in LIST.read_text("utf-8").splitlines() if not line.startswith("#")}
    ran = set(npu.call("chats.operators"))
    new, gone = sorted(ran - listed), sorted(listed - ran)
    assert not new, f"see that CANN has {new}, then add them to operators.txt"
    assert not gone, f"operators.txt names {gone}, which no longer run"


def test_an_operator_without_a_kernel_is_an_error_here(npu: Simulated) -> None:
    assert "mode" in npu.call("chats.fallback")


def test_a_static_forward_asks_the_host_nothing(npu: Simulated) -> None:
    assert set(npu.call("chats.asked_of_the_host").values()) == {0}
