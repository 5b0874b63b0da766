"""The recipe end to end in miniature: it learns, stops, goes on, and ships a model that loads."""

from pathlib import Path

import torch

import instructblip
from instructblip.engine.local import LocalEngine
from instructblip.evaluate import evaluate, normal, report
from instructblip.scenes import compose
from instructblip.training.joint import export, train_joint
from instructblip.training.vision import (
    PATCH,
    class_names,
    patch_owner,
    schedule,
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


def test_a_tiny_run_trains_goes_on_and_ships_a_model_that_answers(tmp_path: Path, capsys) -> None:
    vision, joint, folder = tmp_path / "vit.pt", tmp_path / "joint.pt", tmp_path / "model"
    first = train_vision(vision, 0.03, batch=16)
    before = torch.load(vision, weights_only=True)["names.weight"]
    later = train_vision(vision, 0.06, batch=16)
    assert not torch.equal(torch.load(vision, weights_only=True)["names.weight"], before)
    assert later["loss"] < first["loss"]
    train_joint(folder, vision, joint, 0.04, lookup_minutes=0.02)
    train_joint(folder, vision, joint, 0.02, lookup_minutes=0.0)
    export(folder, joint)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    assert size < 25 * 2**20
    engine = LocalEngine(instructblip.load(folder, device="cpu"))
    try:
        scores = evaluate(engine, seed=1, per_type=1)
    finally:
        engine.close()
    assert {"what", "count", "where"} <= set(scores)
    assert "mean over types" in report(scores)


def test_exact_match_ignores_case_space_and_the_final_stop() -> None:
    assert normal(" A red  Circle.") == normal("a red circle")
    assert normal("a red circle") != normal("a circle")
