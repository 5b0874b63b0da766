"""Pictures from outside the world, and changed icons: of many kinds, and the truth untouched."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from instructblip.scenes import SIZE, compose
from instructblip.training.augment import touch_icon, touch_picture
from instructblip.training.foreign import foreign
from instructblip.training.vision import FOREIGN, class_names, fresh_scene, targets


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
