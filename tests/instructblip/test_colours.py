"""Colour names: every shade that is drawn bears its own name, and clearly so."""

import random
from itertools import combinations

import numpy as np
import pytest

from instructblip.colours import COLOURS, lab, name_of, near_name, shade

CSS = {
    "black": (0, 0, 0), "gray": (128, 128, 128), "red": (255, 0, 0), "blue": (0, 0, 255),
    "green": (0, 128, 0), "brown": (165, 42, 42), "teal": (0, 128, 128), "yellow": (255, 255, 0),
    "beige": (245, 245, 220), "gold": (255, 215, 0), "orange": (255, 165, 0),
    "purple": (128, 0, 128), "pink": (255, 192, 203), "white": (255, 255, 255),
}  # fmt: skip


def drawn(name: str, count: int = 400) -> set[tuple[int, int, int]]:
    rng = random.Random(name)
    return {shade(rng, name) for _ in range(count)}


@pytest.mark.parametrize("name", COLOURS)
def test_every_drawn_shade_bears_its_name(name: str) -> None:
    shades = drawn(name)
    assert len(shades) > 30
    assert {name_of(rgb) for rgb in shades} == {name}
    # the quick table may leave a shade at the edge unnamed, but never misnames it
    assert {near_name(rgb) for rgb in shades} <= {name, None}
    assert name_of(COLOURS[name]) == name


@pytest.mark.parametrize("name", COLOURS)
def test_css_colours_are_named_and_training_shows_their_like(name: str) -> None:
    assert name_of(CSS[name]) == name
    away = np.linalg.norm(lab(np.array(sorted(drawn(name)))) - lab(np.array(CSS[name])), axis=-1)
    assert away.min() < 6


def test_no_two_names_have_shades_that_look_the_same() -> None:
    labs = {name: lab(np.array(sorted(drawn(name)))) for name in COLOURS}
    for one, two in combinations(COLOURS, 2):
        gap = np.linalg.norm(labs[one][:, None] - labs[two][None], axis=-1).min()
        assert gap > 5, (one, two)


@pytest.mark.parametrize("rgb", [(0, 255, 255), (255, 0, 255), (128, 128, 0), (173, 216, 230)])
def test_a_colour_between_names_has_none(rgb: tuple[int, int, int]) -> None:
    assert name_of(rgb) is None
    assert near_name(rgb) is None


def test_lab_of_known_colours() -> None:
    # values of CIE Lab under D65, as published for sRGB's corners
    assert lab(np.array((255, 255, 255))) == pytest.approx((100, 0, 0), abs=0.1)
    assert lab(np.array((255, 0, 0))) == pytest.approx((53.24, 80.09, 67.20), abs=0.2)
    assert lab(np.array((0, 0, 255))) == pytest.approx((32.30, 79.19, -107.86), abs=0.2)
