"""doctor --smoke on the CPU, and what it says when a device goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from instructblip import cli, shapes, smoke
from instructblip.checkpoints import load
from instructblip.diagnosis import Finding
from instructblip.engine.steps import StaticStep
from instructblip.errors import DeviceError
from instructblip.limits import Chip
from instructblip.model import InstructBlip

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
# Its limit is far above, or below, what any machine reaches.
FAST, SLOW = Chip("fast", "", 1e18, 1e21), Chip("slow", "", 1.0, 1.0)


def watched(part: object, fallen: set[str] | None = None) -> list[Finding]:
    return smoke._watched(part, CPU, BF16, set() if fallen is None else fallen)  # type: ignore[arg-type]


def test_one_page_on_a_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--smoke", "--device", "cpu"]) == 0
    out, err = capfd.readouterr()
    assert err == ""  # nothing that would have to be cut out of a report
    for words in (
        "Device: cpu.", "Tiny random model in float32", "Tiny random model in bfloat16",
        "12 of 12 answers are the CPU's.", "the full size is left out on a CPU",
        "First token of a new picture", "Decode, 1 at once", "Decode, 8 at once",
        "The device works.",
    ):  # fmt: skip
        assert words in out
    assert "fell back" not in out  # a CPU has nothing to fall back to
    assert len(out.splitlines()) < 50
    assert "FAULT" not in out


def test_a_device_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--smoke", "--device", "cuda"]) == 1
    assert "The device does not work as it should: see FAULT." in capsys.readouterr().out


# --- agreement -------------------------------------------------------------------------------------


def test_the_tiny_model_is_the_same_each_time_and_leaves_the_seed(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    one, two = (smoke.write_tiny(tmp_path / name) for name in "ab")
    assert torch.equal(torch.get_rng_state(), state)
    files = [(folder / "model.safetensors").read_bytes() for folder in (one, two)]
    assert files[0] == files[1]
    ids = smoke.trace(load(one, device="cpu", dtype="fp32"), static=False).ids
    assert len(set(ids)) > 3  # distinct tokens, or equal ones would show nothing


def test_a_step_that_is_a_little_wrong_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    right = StaticStep.forward

    def wrong(*args: object, **kwargs: object) -> torch.Tensor:
        return right(*args, **kwargs) * 1.02  # type: ignore[arg-type]

    assert [found.well for found in smoke.agreement(CPU, FP32)] == [True]
    monkeypatch.setattr(StaticStep, "forward", wrong)
    (found,) = smoke.agreement(CPU, FP32)
    assert found.well is False
    assert "logits 2.0e-02" in found.text


def test_numbers_that_are_none_are_a_fault(tmp_path: Path) -> None:
    model = load(smoke.write_tiny(tmp_path / "tiny"), device="cpu", dtype="fp32")
    seen = smoke.trace(model)
    assert smoke.compare(seen, seen, "float32", 0.0).well is True
    bad = smoke.Trace(seen.features, seen.image_tokens, seen.logits * float("nan"))
    assert smoke.compare(seen, bad, "float32", 1.0).well is False


# --- answers ---------------------------------------------------------------------------------------


def test_wrong_answers_are_a_fault_and_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def loads(*args: object, **kwargs: object) -> InstructBlip:
        model = load(*args, **kwargs)  # type: ignore[arg-type]
        if not calls:  # the device's comes first
            model.weights.language_projection.weight.data.mul_(-1)
        calls.append("")
        return model

    monkeypatch.setattr(smoke, "load", loads)
    first, *rest = smoke.answers(CPU, FP32)
    assert first.well is False
    assert "On the CPU: 'Glasses.'" in "\n".join(map(str, rest))


# --- faults of the run time ------------------------------------------------------------------------


def test_a_part_that_fails_is_explained_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def agreement(*_: object) -> Iterator[Finding]:
        yield Finding("Seen before.")
        raise RuntimeError("ACL stream synchronize failed, error code is 507015")

    monkeypatch.setattr(smoke, "agreement", agreement)
    monkeypatch.setattr(smoke, "answers", lambda *_: iter([Finding("Still here.", True)]))
    monkeypatch.setattr(smoke, "speed", lambda *_: iter(()))
    before, failed, after = map(str, smoke.smoke(CPU))
    assert before.endswith("Seen before.")
    assert failed.startswith("FAULT agreement failed (RuntimeError: ACL stream")
    assert "An operator failed on the NPU's AI core." in failed
    assert after.endswith("Still here.")


def test_an_error_of_ours_is_told_as_it_is() -> None:
    def speed(*_: object) -> Iterator[Finding]:
        raise DeviceError("The device has gone.")
        yield

    assert "speed failed (DeviceError: The device has gone.)" in watched(speed)[0].text


def test_operators_that_fell_back_are_named_once_and_stderr_is_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def part(*_: object) -> Iterator[Finding]:
        for name in ("aten::mode", "aten::_int_mm", "aten::mode"):
            os.write(  # as C++ does
                2,
                b"[W] Warning: CAUTION: The operator '%s' is not currently supported on the NPU "
                b"backend and will fall back to run on the CPU. (function x)\n" % name.encode(),
            )
        print("something else", file=sys.stderr)
        yield Finding("done")

    fallen: set[str] = set()
    watched(part, fallen)
    found = smoke._fallbacks(CPU, fallen)
    assert found.well is False
    assert found.text.endswith("instead: aten::_int_mm, aten::mode.")
    said = capfd.readouterr().err
    assert said.count("CAUTION") == 3
    assert "something else\n" in said
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


# --- speed -----------------------------------------------------------------------------------------


def test_shares_of_a_limit(tiny_model: InstructBlip) -> None:
    for chip, well in ((FAST, None), (SLOW, True)):
        found = list(smoke.measure(tiny_model, chip, batches=(1, 2), repeats=1))
        assert [f.well for f in found] == [well] * 3
        assert all("of the limit on paper" in f.text for f in found)
    unknown = list(smoke.measure(tiny_model, None, batches=(1,), repeats=1))
    assert "only at full size, on a chip that is known" in unknown[0].text
    assert not any("%" in f.text for f in unknown)


def test_what_a_token_reads(tiny_model: InstructBlip) -> None:
    llm = tiny_model.weights.language_model
    read = {id(t) for t in smoke._read_each_token(tiny_model)}
    assert id(llm.get_output_embeddings().weight) in read
    assert id(llm.get_input_embeddings().weight) not in read
    llm.set_output_embeddings(torch.nn.Linear(1, 1))
    llm.get_output_embeddings().weight = llm.get_input_embeddings().weight  # tied
    assert id(llm.get_input_embeddings().weight) in {
        id(t) for t in smoke._read_each_token(tiny_model)
    }


@pytest.mark.parametrize(("free", "batches"), [(1e12, 2), (19e9, 1)])
def test_the_full_size_where_the_memory_suffices(
    monkeypatch: pytest.MonkeyPatch, tiny_model: InstructBlip, free: float, batches: int
) -> None:
    monkeypatch.setattr(smoke, "free_memory", lambda device: free)
    monkeypatch.setattr(shapes, "random_model", lambda *_, **__: tiny_model)
    found = [f.text for f in smoke.speed(CPU, BF16)]
    assert "vicuna-7b's shapes" in found[0]
    assert sum(text.startswith("Decode") for text in found) == batches


def test_a_device_too_small_for_the_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "free_memory", lambda device: 8e9)
    assert "left out with 8 GB free" in next(smoke.speed(CPU, BF16)).text
