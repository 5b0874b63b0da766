"""One model over two NPUs gives the CPU's tokens; tensors of two devices in one call are refused."""

from __future__ import annotations

import re

import pytest

from tests.npu.simulated import Failed, Simulated


@pytest.mark.parametrize("layout", ["refresh", "keep", "append"])
def test_three_turns_in_a_layout(npu: Simulated, layout: str) -> None:
    answers = npu.call("spreads.chat", "three_turns", layout)
    assert answers["npu"] == answers["cpu"]
    assert len({tuple(ids) for ids in answers["npu"]}) == 3


@pytest.mark.parametrize("case", ["ragged_batch", "beams", "generated"])
def test_batches_beams_and_ranking(npu: Simulated, case: str) -> None:
    answers = npu.call("spreads.chat", case)
    assert answers["npu"] == answers["cpu"]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("int4", "fp32"), ("int8", "fp32"), ("int8", "fp16"), ("tied", "fp32")]
)
def test_kinds_of_weights(npu: Simulated, kind: str, dtype: str) -> None:
    answers = npu.call("spreads.kind", kind, dtype)
    assert answers["npu"] == answers["cpu"]
    assert answers["devices"] == [2, 1]


def test_each_layer_is_whole_on_one_device_with_its_keys_and_values(npu: Simulated) -> None:
    held = npu.call("spreads.held")
    (first,), *_, (last,) = held["layers"]
    assert (first, last) == ("npu:0", "npu:1")
    assert held["before"] == ["npu:0"]
    assert held["keys"] == held["values"] == [device for (device,) in held["layers"]]
    assert (held["card"], held["current"]) == ("npu:0,npu:1", 0)


def test_a_step_crosses_with_what_layers_share_once_and_comes_back(npu: Simulated) -> None:
    held = npu.call("spreads.held")
    assert held["keys"].count("npu:1") == 2  # so that one of them could fetch too much
    # There: hidden states in two parts, two angles, the mask, where to write. Back: logits.
    step = ["npu:0>npu:1"] * 6 + ["npu:1>npu:0"]
    assert held["copies"][-14:] == step * 2  # the two steps after the prefill


def test_the_simulation_refuses_tensors_of_two_devices(npu: Simulated) -> None:
    with pytest.raises(Failed, match="tensors on npu:0 and npu:1"):
        npu.call("spreads.mixed")


@pytest.mark.parametrize("device", ["npu:0,npu:0", "npu:0,cpu", "npu:0,npu", "npu:0,", "cpu,cpu"])
def test_devices_that_cannot_share_a_model(npu: Simulated, device: str) -> None:
    said = npu.call("spreads.refused", device)
    assert said.startswith(f"DeviceError device_unknown: device = {device!r}")
    assert "npu:0,npu:1" in said


def test_more_devices_than_there_are(npu: Simulated) -> None:
    said = npu.call("spreads.refused", "npu:0,npu:1,npu:2")
    assert said.startswith("DeviceError device_absent: device = 'npu:2' was asked for")
    assert "npu:0 to npu:1" in said


def test_too_little_memory_is_told_for_each_device_before_loading(npu: Simulated) -> None:
    said = npu.call("spreads.refused", "npu:0,npu:1", 600_000)
    assert said.startswith("OutOfMemory out_of_memory: The weights of ")
    assert re.search(r"npu:0 has 0\.\d MB free, npu:1 has 0\.\d MB free", said)


def test_doctor_looks_at_each_device(npu: Simulated) -> None:
    found = "\n".join(npu.call("spreads.doctor"))
    assert "Device: npu:0 (Ascend910B3), " in found
    assert "Device: npu:1 (Ascend910B3), " in found
    assert "; layers: 1 on npu:0, 2 on npu:1." in found
