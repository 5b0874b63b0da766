"""Presets: what each stands for, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import json

import pytest
from slow_engine import CARD

from instructblip.engine.base import SamplingParams
from webui.presets import presets, rows
from webui.sampling import FIELDS, defaults, parse

OFFICIAL = dataclasses.replace(
    CARD, generation=SamplingParams(max_new_tokens=255, repetition_penalty=1.5)
)


def chosen(name: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """The panel after a click on a preset, as page.js fills it."""
    row = rows(OFFICIAL)[name]
    return tuple(old if new is None else new for old, new in zip(values, row, strict=True))


def test_standard_is_the_checkpoints_own() -> None:
    assert presets(OFFICIAL)["standard"] == OFFICIAL.generation


def test_creative_is_nucleus_sampling_with_the_checkpoints_penalty() -> None:
    made = parse(chosen("creative", defaults(OFFICIAL)), OFFICIAL, "en").sampling
    assert (made.temperature, made.top_p, made.num_beams) == (1.0, 0.9, 1)
    assert made.repetition_penalty == 1.5


def test_beams_are_those_of_lavis() -> None:
    from instructblip.generation import GenerationParams

    lavis = {f.name: f.default for f in dataclasses.fields(GenerationParams)}
    made = parse(chosen("beams", defaults(CARD)), CARD, "en").sampling
    assert made.temperature == 0  # no sampling
    assert not lavis["use_nucleus_sampling"]
    for name in ("num_beams", "top_p", "repetition_penalty", "length_penalty"):
        assert getattr(made, name) == lavis[name], name
    assert made.max_new_tokens == lavis["max_length"] - 1  # LAVIS counts the start token


@pytest.mark.parametrize("name", ["standard", "creative", "beams"])
def test_a_preset_leaves_what_is_somebodys_own(name: str) -> None:
    own = {"seed": "7", "stop": "###", "layout": "keep"}
    before = dict(zip(FIELDS, defaults(OFFICIAL), strict=True)) | own | {"top_p": 0.31}
    after = dict(zip(FIELDS, chosen(name, tuple(before.values())), strict=True))
    assert {field: after[field] for field in own} == own
    wanted = dataclasses.replace(presets(OFFICIAL)[name], seed=7, stop=("###",))
    made = parse(tuple(after.values()), OFFICIAL, "en")
    assert (made.sampling, made.layout) == (wanted, "keep")
    assert json.loads(json.dumps(rows(OFFICIAL))) == rows(OFFICIAL)  # as page.js has them
