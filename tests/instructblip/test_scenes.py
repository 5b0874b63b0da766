"""Scenes: the same seed gives the same picture, and the truth about it is true."""

import random
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from instructblip.colours import ground_of, share_of
from instructblip.scenes import ATLAS, COLOURS, SHAPES, Scene, Thing, atlas, compose, phrase


def test_a_seed_repeats_and_seeds_differ() -> None:
    first, again, other = compose(7), compose(7), compose(8)
    assert first.objects == again.objects
    assert first.image.tobytes() == again.image.tobytes()
    assert other.image.tobytes() != first.image.tobytes()


def test_the_world_is_as_large_as_stated() -> None:
    book = atlas()
    assert len(book.classes) >= 60
    assert len(SHAPES) == 13
    assert len(COLOURS) == 14
    assert len(book.train_styles) >= 5
    assert len(book.test_styles) == 2
    assert not set(book.test_styles) & set(book.train_styles)
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


def named_pixels(scene: Scene, thing: Thing) -> float:
    """Share of the pixels in a thing's box that bear its colour's name."""
    size = scene.image.width
    spot = scene.image.crop(tuple(round(v * size) for v in thing.box))
    return share_of(np.asarray(spot).reshape(-1, 3), thing.colour or "")


def test_a_colour_in_the_truth_is_the_colour_in_the_picture() -> None:
    shares = []
    for seed in range(120):
        scene = compose(seed, count=1, only="shape", size=160)
        shares.append(named_pixels(scene, scene.objects[0]))
    # an outline's colour covers little of its box, a plain shape's most
    assert min(shares) > 0.03
    assert np.median(shares) > 0.45


def test_a_shapes_box_fits_it() -> None:
    for seed in range(150):
        scene = compose(seed, count=1, only="shape", size=200)
        thing = scene.objects[0]
        wide, high = thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]
        assert (wide, high) == pytest.approx(thing.seen)
        if thing.name in ("rectangle", "oval", "square", "circle"):
            inside = min(thing.box[:2]) > 0 and max(thing.box[2:]) < 1
            long = max(wide, high) / min(wide, high)
            if inside and thing.name in ("square", "circle"):
                assert long < 1.15
            elif inside:
                assert 1.05 < long < 3.3


def test_every_shape_and_colour_comes_up_small_and_large_also_cut_by_the_border() -> None:
    rng = random.Random(4)
    things = [compose(rng, count=1, only="shape").objects[0] for _ in range(700)]
    assert {t.name for t in things} == set(SHAPES)
    assert {t.colour for t in things} == set(COLOURS)
    longest = [max(t.seen) for t in things]
    assert min(longest) < 0.13
    assert max(longest) > 0.8
    cut = [t for t in things if 0 in t.box[:2] or 1 in t.box[2:]]
    assert 0.02 < len(cut) / len(things) < 0.2


def test_a_ground_is_named_where_it_is_plainly_of_one_colour() -> None:
    rng = random.Random(6)
    scenes = [compose(rng) for _ in range(800)]
    named = [s for s in scenes if s.ground]
    assert 0.27 < len(named) / len(scenes) < 0.45
    grounds = [s.ground for s in named]
    assert set(grounds) <= set(COLOURS)
    assert len(set(grounds)) >= 12
    assert max(set(grounds), key=grounds.count) == "white"
    for scene in named:
        assert all(t.colour != scene.ground for t in scene.objects)


@pytest.mark.parametrize(
    ("tone", "ground"),
    [
        ((255, 255, 255), "white"), ((0, 0, 0), "black"), ((128, 128, 128), "gray"),
        ((0, 0, 255), "blue"), ((173, 216, 230), None), ((230, 230, 250), None),
        ((245, 245, 220), "beige"), ((0, 255, 255), None),
    ],
)  # fmt: skip
def test_the_ground_of_plain_pictures(tone: tuple[int, int, int], ground: str | None) -> None:
    assert ground_of(Image.new("RGB", (112, 112), tone)) == ground
    split = Image.new("RGB", (112, 112), tone)
    split.paste((255, 120, 0), (0, 0, 56, 112))
    assert ground_of(split) is None


def test_flat_pictures_hold_one_plain_shape_on_a_light_ground() -> None:
    rng = random.Random(8)
    scenes = [compose(rng, flat=True) for _ in range(200)]
    assert {s.image.size for s in scenes} == {(112, 112)}
    assert all(len(s.objects) == 1 and s.objects[0].kind == "shape" for s in scenes)
    corners = [np.array(s.image)[[0, 0, -1, -1], [0, -1, 0, -1]] for s in scenes]
    assert np.median([c.min() for c in corners]) > 200
    assert compose(3, flat=True).objects == compose(3, flat=True).objects


def test_phrases_have_their_article() -> None:
    phrases = {phrase(t) for s in range(300) for t in compose(s).objects}
    for one, two in pairwise(sorted(phrases)):
        assert one != two
    assert any(p.startswith("an orange ") for p in phrases)
    assert not any(p.startswith(("a orange", "a apple", "an black")) for p in phrases)
