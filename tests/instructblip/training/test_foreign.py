"""Pictures from outside the world, and changed icons: of many kinds, and the truth untouched."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instructblip.scenes import SIZE, Scene, Thing, compose
from instructblip.training import vision
from instructblip.training.augment import touch_icon, touch_picture
from instructblip.training.foreign import foreign
from instructblip.training.vision import (
    FOREIGN,
    class_names,
    fresh_scene,
    patch_owner,
    targets,
)


def test_foreign_pictures_are_many_and_fit(tmp_path: Path) -> None:
    rng = random.Random(3)
    seen = {foreign(rng).tobytes() for _ in range(60)}
    assert len(seen) == 60
    Image.new("RGB", (300, 200), "red").save(tmp_path / "photo.jpg")
    pictures = [foreign(rng, tmp_path) for _ in range(30)]
    assert {(p.size, p.mode) for p in pictures} == {((SIZE, SIZE), "RGB")}
    # The one photograph is red all over, whatever is cut from it.
    assert any(np.asarray(p)[..., 0].std() < 2 for p in pictures)


def test_a_foreign_picture_has_no_objects_and_says_so_in_the_targets() -> None:
    rng = random.Random(5)
    scenes = [fresh_scene(rng, foreign_share=0.5) for _ in range(40)]
    truth = targets(scenes, {n: i for i, n in enumerate(class_names())})
    for scene, outside, names in zip(scenes, truth.foreign, truth.names, strict=True):
        assert bool(outside) == (scene.style == FOREIGN) == (not scene.objects)
        assert bool(names.any()) == bool(scene.objects)
    assert 0 < truth.foreign.sum() < 40


def test_changed_icons_leave_the_truth_as_it_was() -> None:
    rng = random.Random(2)
    changed = 0
    for seed in range(20):
        scene = compose(seed, touch=touch_icon)
        for thing in scene.objects:
            assert 0 <= thing.box[0] < thing.box[2] <= 1
        after = touch_picture(rng, scene.image)
        assert after.size == scene.image.size
        changed += after.tobytes() != scene.image.tobytes()
    assert 0 < changed < 20


def test_a_thin_shape_owns_every_patch_along_it() -> None:
    thin = (0.1, 0.295, 0.9, 0.345)  # between the centres of the second and the third row
    thing = Thing("rectangle", "shape", "red", thin, (0.8, 0.05))
    scene = Scene(Image.new("RGB", (SIZE, SIZE)), (thing,), "noto")
    owner = patch_owner(scene).reshape(7, 7)
    assert owner[2].tolist() == [-1, 0, 0, 0, 0, 0, -1]
    assert (owner == 0).sum() == 5


def test_training_pictures_are_repeatable_and_some_are_flat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, again = fresh_scene(random.Random(7)), fresh_scene(random.Random(7))
    assert one.image.tobytes() == again.image.tobytes()
    assert one.objects == again.objects
    assert 0.03 < vision.FLAT < 0.1
    monkeypatch.setattr(vision, "FLAT", 1.0)
    scenes = [fresh_scene(random.Random(seed), foreign_share=0) for seed in range(30)]
    assert all([t.kind for t in s.objects] == ["shape"] for s in scenes)
    assert {s.image.size for s in scenes} == {(SIZE, SIZE)}
