"""Weights laid out for the processor at load: where wished, where there is room, else not."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import instructblip
from instructblip import fused
from instructblip.checkpoints import loading
from instructblip.errors import CheckpointError, InstructBlipError
from instructblip.fused import PackedLinear, WideLinear, packing


def packed(model: instructblip.InstructBlip) -> int:
    return sum(isinstance(m, PackedLinear) for m in model.weights.language_model.modules())


def test_half_precision_is_packed_and_answers_the_same(tiny_folder: Path) -> None:
    plain = instructblip.load(tiny_folder, device="cpu", dtype="bf16", prepack=False)
    model = instructblip.load(tiny_folder, device="cpu", dtype="bf16")
    assert packed(plain) == 0
    assert packed(model) == (3 * 7 + 1 if packing(torch.bfloat16) else 0)
    embeds = plain.embed(range(5, 30))[None]
    with torch.inference_mode():
        want, got = (m.weights.language_model(inputs_embeds=embeds).logits for m in (plain, model))
    torch.testing.assert_close(got, want, atol=0.1, rtol=0.05)


def test_fp32_and_little_memory_stay_plain(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packed(instructblip.load(tiny_folder, device="cpu", dtype="fp32")) == 0
    monkeypatch.setattr(loading, "free_memory", lambda: 2**30)
    assert packed(instructblip.load(tiny_folder, device="cpu", dtype="bf16")) == 0
    if packing(torch.bfloat16):
        assert packed(instructblip.load(tiny_folder, device="cpu", dtype="bf16", prepack=True))


def test_without_half_precision_linears_are_wide_and_answer_the_same(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "half_arithmetic", lambda dtype: dtype is torch.float32)
    monkeypatch.setattr(fused, "packing", lambda dtype: False)
    model = instructblip.load(tiny_folder, device="cpu", dtype="bf16")
    exact = instructblip.load(tiny_folder, device="cpu", dtype="fp32")
    parts = (model.weights.vision_model, model.weights.language_model)
    assert all(any(isinstance(m, WideLinear) for m in part.modules()) for part in parts)
    assert not any(isinstance(m, WideLinear) for m in model.weights.qformer.modules())  # fp32
    with torch.inference_mode():
        want, got = (
            m.weights.language_model(inputs_embeds=m.embed(range(5, 30))[None]).logits.float()
            for m in (exact, model)
        )
    torch.testing.assert_close(got, want, atol=0.1, rtol=0.05)


def test_a_load_leaves_no_team_of_threads_behind(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside another team the engine's threads may not spin, and prefill takes twice as long."""
    threads: list[threading.Thread] = []
    assemble = loading.assemble

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return assemble(*args)

    monkeypatch.setattr(loading, "assemble", noted)
    instructblip.load(tiny_folder, device="cpu")
    assert not threads[0].is_alive()

    code = """
        import os, time, torch
        from instructblip.checkpoints.loading import _in_thread_of_its_own
        torch.set_num_threads(2)
        count = lambda: len(os.listdir("/proc/self/task"))
        before = count()
        _in_thread_of_its_own(lambda: torch.ones(1 << 22).sum())
        for _ in range(1200):  # the system takes a moment to end them
            if count() == before:
                break
            time.sleep(0.05)
        after = count()
        torch.ones(1 << 22).sum()
        print(after - before, count() - before)
    """
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.split() == ["0", "1"]


def test_what_fails_in_a_load_is_raised() -> None:
    with pytest.raises(CheckpointError, match="no-such"):
        instructblip.load("no-such-folder", device="cpu")
    with pytest.raises(InstructBlipError, match="dtype"):
        instructblip.load(device="cpu", dtype="fp7")
