"""The recipe's parts: targets, schedule, learning rates, material, log."""

import os
from itertools import islice
from pathlib import Path

import pytest
import torch

from instructblip.checkpoints import EMBEDDED
from instructblip.scenes import compose
from instructblip.training.budget import Budget
from instructblip.training.log import Log, plot, read
from instructblip.training.loop import Workshop
from instructblip.training.material import Material
from instructblip.training.vision import (
    PATCH,
    DenseVision,
    class_names,
    optimisers,
    patch_owner,
    schedule,
    set_rate,
    targets,
    train_vision,
)


def test_patch_targets_name_what_lies_under_the_patch() -> None:
    names = {n: i for i, n in enumerate(class_names())}
    scene = compose(11, count=3)
    truth = targets([scene], names)
    owner = patch_owner(scene)
    for patch, index in enumerate(owner):
        want = 0 if index < 0 else names[scene.objects[index].name]
        assert truth.names[0, patch] == want
    assert set(owner) - {-1} == {0, 1, 2}
    assert scene.image.width == PATCH * 7


def test_the_schedule_warms_up_holds_and_ends_low() -> None:
    assert schedule(0.0, 1.0) < 0.1
    assert schedule(0.3, 1.0) == 1.0
    assert schedule(0.999, 1.0) < 0.05


def test_the_vit_learns_and_goes_on_from_its_file(tmp_path: Path) -> None:
    vision = tmp_path / "vit.pt"
    first = train_vision(vision, Budget(steps=12), batch=8)
    before = torch.load(vision, weights_only=True)["heads.names.weight"]
    os.utime(vision, (1, 1))  # the time of the file chooses the scenes of what follows
    later = train_vision(vision, Budget(steps=12), batch=8)
    assert not torch.equal(torch.load(vision, weights_only=True)["heads.names.weight"], before)
    assert later["loss"] < first["loss"]


def test_a_budget_of_steps_does_not_see_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 3600))  # an hour passes between two looks
    monkeypatch.setattr("instructblip.training.budget.monotonic", lambda: next(clock))
    steps = Budget(1e-6, steps=4, began=0)
    assert list(iter(steps.spend, None)) == [0, 0.25, 0.5, 0.75]
    minutes = Budget(180, began=0)
    assert list(iter(minutes.spend, None)) == pytest.approx([0, 1 / 3, 2 / 3])


def test_the_log_counts_on_after_a_stop_and_survives_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        log = Log(path, "joint", every=2)
        for step in range(4):
            log.step(step, 10, {"loss": 1.0 / (step + 1)})
        with path.open("a") as file:
            file.write('{"stage": "joi')
            file.write("\n")
    assert [r["samples"] for r in read(path)] == [20, 40, 60, 80]
    plot(path, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 5000


def test_parts_have_learning_rates_of_their_own() -> None:
    model = DenseVision(5)
    chosen = optimisers(model, 1.0, ("heads.",))
    set_rate(chosen, 0.1, {"heads.": 0.5})
    rates = {id(p): g["lr"] for o in chosen for g in o.param_groups for p in g["params"]}
    assert rates[id(model.heads.names.weight)] == pytest.approx(0.05)
    assert len(rates) == len(list(model.parameters()))
    assert set(rates.values()) == {0.1, 0.05}


def test_material_asks_the_look_ups_that_it_is_told_to(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, EMBEDDED)
    material = Material(shop.collator(), shop.names, seed=3, pictures=12)
    compared = []
    for share in (0.0, 1.0):
        material.look_ups.fill_(share)
        samples = list(islice(iter(material), 4))
        compared.append(sum(int((s.batch.holds[:, 1] >= 0).sum()) for s in samples))
        for sample in samples:
            assert sample.images.shape == (12, 112, 112, 3)
            asked = sample.batch.holds[:, 1] >= 0
            # The truth of "which is bigger" is what the sizes say, turned by the question's word.
            assert (sample.batch.ratio[asked].abs() > 0.29).all()
    assert compared[1] > 4 * max(compared[0], 1)
