"""``train-embedded``: a tiny run from nothing, a stop, going on, and what it writes."""

import json
from pathlib import Path

import pytest
import torch

import instructblip
from instructblip import cli
from instructblip.engine.local import LocalEngine
from instructblip.evaluate import evaluate
from instructblip.figures import report


def train(work: Path, *flags: str) -> int:
    return cli.main(["train-embedded", "--work", str(work), *flags])


def test_a_tiny_run_from_nothing_goes_on_and_ships_a_model_that_answers(tmp_path: Path) -> None:
    work, model = tmp_path / "work", tmp_path / "model"
    small = ("--steps", "4", "--pictures", "8")
    assert train(work, "--start", "scratch", "--vision-minutes", "1", *small) == 0
    reports = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert [(r["stage"], r["samples"] > 0) for r in reports] == [("vision", True), ("joint", True)]
    before = torch.load(work / "joint.pt", weights_only=True)["model.query_tokens"]
    assert train(work, *small, "--export", str(model)) == 0
    assert not torch.equal(
        torch.load(work / "joint.pt", weights_only=True)["model.query_tokens"], before
    )
    assert (work / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sum(f.stat().st_size for f in model.rglob("*") if f.is_file()) < 25 * 2**20
    engine = LocalEngine(instructblip.load(model, device="cpu"))
    try:
        scores = evaluate(engine, seed=1, per_type=1, types=("what", "where+"))
    finally:
        engine.close()
    assert set(scores) >= {"what", "where+"}
    assert "mean over types" in report(scores)


def test_the_shipped_weights_alone_are_enough_to_go_on_from(tmp_path: Path) -> None:
    assert train(tmp_path, "--steps", "8", "--pictures", "8") == 0
    reports = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # From nothing the language loss begins at ln(1602) = 7.4.
    assert reports[0]["language"] < 1.0
    kept = instructblip.load(tmp_path / "model", device="cpu").weights.query_tokens
    shipped = instructblip.load("embedded", device="cpu").weights.query_tokens
    # Only the probes learn in so short a run.
    assert torch.allclose(kept, shipped, atol=2e-2)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--minutes", "90"), "60"),
        (("--minutes", "0"), "60"),
        (("--steps", "0"), "--steps 0"),
        (("--photos", "nowhere"), "nowhere"),
    ],
)
def test_wrong_flags_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], word: str
) -> None:
    assert train(tmp_path / "work", *flags) != 0
    assert word in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
