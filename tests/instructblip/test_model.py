"""The model's parts: a picture's keys and values are made once and are those of this picture."""

from __future__ import annotations

import pytest
import torch

from instructblip.attention import PictureProjection
from instructblip.images import open_upright
from instructblip.model import InstructBlip
from tests.tiny import picture


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the projections of pictures that are computed."""
    made: list[int] = []
    linear = torch.nn.Linear.forward

    def count(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self, PictureProjection):
            made.append(self.place)
        return linear(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", count)
    return made


def test_the_second_question_about_a_picture_projects_nothing(
    tiny_model: InstructBlip, calls: list[int]
) -> None:
    features = tiny_model.encode_image(open_upright(picture()))
    bare = features.nbytes
    tiny_model.query(features, "what is it")
    first = list(calls)
    assert sorted(first) == list(range(len(first)))
    assert len(first) >= 2
    assert features.nbytes > bare
    tiny_model.query(features, "where is the cat")
    assert calls == first


def test_answers_are_those_without_keeping_and_pictures_are_not_mixed(
    tiny_model: InstructBlip,
) -> None:
    red, green = (
        tiny_model.encode_image(open_upright(data)) for data in (picture(), picture((10, 200, 40)))
    )
    for features, other in ((red, green), (green, red)):
        for text in ("what is it", "where is the cat"):
            kept = tiny_model.query(features, text)
            tiny_model.query(other, text)
            fresh = tiny_model.query(type(features)(features.embeds), text)
            assert torch.equal(tiny_model.query(features, text), kept)
            assert torch.equal(fresh, kept)


def test_a_failure_in_the_middle_leaves_nothing_behind(
    tiny_model: InstructBlip, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = tiny_model.encode_image(open_upright(picture()))
    want = tiny_model.query(features, "what is it")
    with monkeypatch.context() as patch:
        patch.setattr(tiny_model.weights.qformer, "forward", lambda **kw: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny_model.query(features, "what is it")
    other = tiny_model.encode_image(open_upright(picture((10, 200, 40))))
    assert not torch.equal(tiny_model.query(other, "what is it"), want)
    assert torch.equal(tiny_model.query(features, "what is it"), want)
