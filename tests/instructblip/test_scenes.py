"""Scenes: the same seed gives the same picture, and the truth about it is true."""

import random
from itertools import pairwise

import numpy as np
import pytest

from instructblip.scenes import ATLAS, COLOURS, SHAPES, atlas, compose, phrase


def test_a_seed_repeats_and_seeds_differ() -> None:
    first, again, other = compose(7), compose(7), compose(8)
    assert first.objects == again.objects
    assert first.image.tobytes() == again.image.tobytes()
    assert other.image.tobytes() != first.image.tobytes()


def test_the_world_is_as_large_as_stated() -> None:
    book = atlas()
    assert len(book.classes) >= 60
    assert len(SHAPES) == 9
    assert len(COLOURS) == 11
    assert len(book.train_styles) >= 5
    assert book.test_style not in book.train_styles
    assert sum(f.stat().st_size for f in ATLAS.iterdir()) < 4 * 2**20
    for style in book.tiles.values():
        assert set(style) - {"?"} <= set(book.classes)


def test_shares_of_scenes_are_as_stated() -> None:
    rng = random.Random(3)
    scenes = [compose(rng) for _ in range(600)]
    things = [t for s in scenes for t in s.objects]
    drawn = sum(t.kind in ("shape", "letter", "digit") for t in things) / len(things)
    unknown = sum(t.kind == "unknown" for t in things) / len(things)
    assert 0.38 < drawn < 0.55
    assert 0.06 < unknown < 0.17
    assert {len(s.objects) for s in scenes} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("seed", range(12))
def test_objects_lie_inside_hardly_overlap_and_are_off_cell_borders(seed: int) -> None:
    scene = compose(seed, count=5)
    for thing in scene.objects:
        assert 0 <= thing.box[0] < thing.box[2] <= 1.001
        assert 0 <= thing.box[1] < thing.box[3] <= 1.001
        assert all(abs(c - b) > 0.02 for c in thing.centre for b in (1 / 3, 2 / 3))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_visible_of_a_thing_is_measured_not_its_tile(seed: int) -> None:
    scene = compose(seed, count=1, size=200)
    thing = scene.objects[0]
    wide, high = thing.seen
    assert 0 < wide <= thing.box[2] - thing.box[0] + 0.01
    assert 0 < high <= thing.box[3] - thing.box[1] + 0.01
    assert thing.area == pytest.approx(wide * high)


def test_a_letter_is_seen_smaller_than_a_square_of_the_same_tile() -> None:
    shares: dict[str, list[float]] = {}
    for seed in range(300):
        for t in compose(seed, size=96).objects:
            shares.setdefault(t.kind, []).append(t.area / (t.box[2] - t.box[0]) ** 2)
    assert np.mean(shares["letter"]) < 0.65 < np.mean(shares["animal"])


def test_a_colour_in_the_truth_is_the_colour_in_the_picture() -> None:
    checked = 0
    for seed in range(200):
        scene = compose(seed, count=1)
        thing = scene.objects[0]
        if thing.name in ("circle", "square"):
            x, y = (int(c * scene.image.width) for c in thing.centre)
            pixel = np.array(scene.image.getpixel((x, y)))
            assert np.abs(pixel - np.array(COLOURS[thing.colour])).max() < 40
            checked += 1
    assert checked >= 5


def test_phrases_have_their_article() -> None:
    phrases = {phrase(t) for s in range(300) for t in compose(s).objects}
    for one, two in pairwise(sorted(phrases)):
        assert one != two
    assert any(p.startswith("an orange ") for p in phrases)
    assert not any(p.startswith(("a orange", "a apple", "an black")) for p in phrases)
