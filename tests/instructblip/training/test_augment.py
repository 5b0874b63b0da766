"""Pictures as scanners, cameras and screenshots give them: the truth moves with the picture."""

import dataclasses
import random

import numpy as np
import pytest
from PIL import Image

from instructblip.scenes import SIZE, Scene, Thing, compose
from instructblip.training import augment
from instructblip.training.augment import tilted, touch_scene


def dot(box: tuple[float, float, float, float]) -> Scene:
    """A red rectangle on white, exactly as large as its box."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    image.paste((255, 0, 0), tuple(round(v * SIZE) for v in box))
    thing = Thing("rectangle", "shape", "red", box, (box[2] - box[0], box[3] - box[1]))
    return Scene(image, (thing,), "noto", "white")


def reds(image: Image.Image) -> np.ndarray:
    """Left, top, right and bottom of what is red, in 0..1."""
    raw = np.asarray(image).astype(int)
    rows, columns = np.nonzero((raw[..., 0] > 150) & (raw[..., 1] < 100) & (raw[..., 2] < 100))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SIZE


@pytest.mark.parametrize("seed", range(12))
def test_boxes_go_where_a_tilt_takes_the_picture(seed: int) -> None:
    rng = random.Random(seed)
    x, y = rng.choice((0.06, 0.42, 0.75)), rng.choice((0.06, 0.42, 0.75))
    scene = dot((x, y, x + 0.16, y + 0.16))
    after = tilted(rng, scene)
    assert after.image.tobytes() != scene.image.tobytes()
    assert reds(after.image) == pytest.approx(np.array(after.objects[0].box), abs=0.022)
    assert after.objects[0].cell == scene.objects[0].cell


def test_a_picture_whose_things_would_come_onto_borders_stays_straight() -> None:
    scene = dot((0.02, 0.24, 0.12, 0.40))  # its centre is at .32, almost on a border
    assert tilted(random.Random(1), scene) is scene


def touched(monkeypatch: pytest.MonkeyPatch, part: str, count: int) -> list[tuple[Scene, Scene]]:
    """Scenes before and after one kind of change alone."""
    for share in ("SCANNED", "TILTED", "FRAMED"):
        monkeypatch.setattr(augment, share, float(share == part))
    monkeypatch.setattr(augment, "touch_picture", lambda rng, image: image)
    rng, pairs = random.Random(9), []
    for _ in range(count):
        scene = compose(rng, only="shape")
        pairs.append((scene, touch_scene(rng, scene)))
    return pairs


def test_bars_cover_no_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = 0
    for before, after in touched(monkeypatch, "FRAMED", 60):
        changed += before.image.tobytes() != after.image.tobytes()
        assert before.objects == after.objects
        for thing in before.objects:
            left, top, right, bottom = (round(v * SIZE) for v in thing.box)
            inner = (max(left, 1), max(top, 1), min(right, SIZE - 1), min(bottom, SIZE - 1))
            assert before.image.crop(inner).tobytes() == after.image.crop(inner).tobytes()
    assert changed > 30


def test_a_scan_softens_and_changes_no_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in touched(monkeypatch, "SCANNED", 40):
        assert before.objects == after.objects
        assert after.ground in (before.ground, None)
        away = np.abs(np.asarray(before.image).astype(int) - np.asarray(after.image).astype(int))
        assert 0.5 < away.mean() < 45


def test_a_ground_that_a_change_takes_away_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = dot((0.4, 0.4, 0.6, 0.6))
    for share in ("SCANNED", "TILTED", "FRAMED"):
        monkeypatch.setattr(augment, share, 0.0)
    gray = Image.new("RGB", (SIZE, SIZE), (200, 200, 205))
    monkeypatch.setattr(augment, "touch_picture", lambda rng, image: gray)
    assert touch_scene(random.Random(1), scene).ground is None
    monkeypatch.setattr(augment, "touch_picture", lambda rng, image: image)
    assert touch_scene(random.Random(1), scene) == dataclasses.replace(scene)
