"""Presets: what each stands for, and that the panel knows it again."""

from __future__ import annotations

import dataclasses
import json

import pytest
from slow_engine import CARD

from instructblip.engine.base import SamplingParams
from webui.presets import name_of, presets, rows
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
    assert name_of(defaults(OFFICIAL), OFFICIAL) == "standard"


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
def test_a_chosen_preset_is_known_again_and_leaves_what_is_somebodys_own(name: str) -> None:
    own = {"seed": "7", "stop": "###", "layout": "keep"}
    before = tuple((dict(zip(FIELDS, defaults(OFFICIAL), strict=True)) | own).values())
    after = chosen(name, before)
    assert name_of(after, OFFICIAL) == name
    assert {field: after[FIELDS.index(field)] for field in own} == own
    assert name_of(tuple(json.loads(json.dumps(after))), OFFICIAL) == name
    changed = dict(zip(FIELDS, after, strict=True)) | {"top_p": 0.31}
    assert name_of(tuple(changed.values()), OFFICIAL) is None
