"""Captions are read back into triples, whatever the order, and F1 counts them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructblip.scenes import UNKNOWN, compose
from instructblip.training.dialogues import SPEECHES
from instructblip.triples import f1, triples


@given(st.integers(0, 10**6), st.sampled_from(["en", "zh"]), st.booleans())
def test_every_caption_of_the_world_reads_back_as_its_things(
    seed: int, language: str, places: bool
) -> None:
    things, say = compose(seed, size=16).objects, SPEECHES[language]
    said = triples(say.caption(things, places), language)
    want = [(t.name, t.colour or "", say.place(t) if places else "") for t in things]
    assert sorted(said.elements()) == sorted(want)


@given(st.integers(0, 10**6))
def test_the_order_does_not_count(seed: int) -> None:
    things = list(compose(seed, size=16).objects)
    text = SPEECHES["en"].caption(things, places=True)
    random.Random(seed).shuffle(things)
    assert f1(SPEECHES["en"].caption(things, places=True), text, "en") == 1.0


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("A cat and a red circle.", 1.0),
        ("a red circle and a cat", 1.0),
        ("A cat and a blue circle.", 0.5),
        ("A cat.", 2 / 3),
        ("A cat, a cat and a red circle.", 4 / 5),
        ("I don't recognise this picture.", 0.0),
        ("", 0.0),
        ("Something I do not know.", 0.0),
    ],
)
def test_f1_of_short_captions(said: str, score: float) -> None:
    assert f1(said, "A cat and a red circle.", "en") == pytest.approx(score)


def test_places_and_unknown_things_count_in_chinese_too() -> None:
    true = "在左上角有红色的圆形、在右边有我不认识的东西。"
    assert triples(true, "zh")[(UNKNOWN, "", "右边")] == 1
    assert f1("在右边有我不认识的东西、在左上角有红色的圆形。", true, "zh") == 1.0
    assert f1("在左边有红色的圆形、在右边有我不认识的东西。", true, "zh") == 0.5
