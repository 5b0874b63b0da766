"""The answer settings: what the panel sends becomes parameters, and wrong values are explained."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_engine import CARD

from instructblip.engine.base import SamplingParams
from instructblip.errors import BadParameter
from webui.i18n import LANGUAGES, error_text, text
from webui.sampling import FIELDS, as_dict, defaults, for_retry, parse, restored

GOOD = dict(zip(FIELDS, defaults(CARD), strict=True))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def panel(**changed: Any) -> tuple[Any, ...]:
    return tuple((GOOD | changed).values())


def test_the_defaults_are_the_checkpoints() -> None:
    made = parse(defaults(CARD), CARD, "en")
    assert made.sampling == CARD.generation
    assert made.layout == "append"
    own = dataclasses.replace(
        CARD, generation=SamplingParams(seed=7, stop=("a", "b"), temperature=0.3)
    )
    assert parse(defaults(own), own, "en").sampling == own.generation
    searching = SamplingParams(num_beams=4, length_penalty=2.0, min_new_tokens=8)
    own = dataclasses.replace(CARD, generation=searching)
    assert parse(defaults(own), own, "en").sampling == searching  # also what the panel lacks


def test_all_fields_arrive() -> None:
    given_values = (0.5, 40, 0.9, 1.2, 64, " 12 ", "###\n\n two words ", "keep", 3, -0.5)
    made = parse(given_values, CARD, "en")
    assert made.sampling == SamplingParams(
        64, 0.5, 40, 0.9, 1.2, 12, ("###", " two words "), num_beams=3, length_penalty=-0.5
    )
    assert made.layout == "keep"
    assert as_dict(made.sampling)["seed"] == 12
    assert json.dumps(as_dict(made.sampling))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", 5.1), ("temperature", None), ("temperature", "hot"),
        ("temperature", True), ("temperature", float("nan")), ("temperature", float("inf")),
        ("temperature", 10**400), ("top_k", -1), ("top_k", 2.5), ("top_k", float("nan")),
        ("top_k", float("-inf")), ("top_k", 10**400), ("top_k", []), ("top_p", 0), ("top_p", 1.01),
        ("repetition_penalty", 0), ("repetition_penalty", 6), ("max_new_tokens", 0),
        ("max_new_tokens", 4097), ("max_new_tokens", 1.5), ("max_new_tokens", ""),
        ("num_beams", 0), ("num_beams", 17), ("num_beams", 1.5), ("num_beams", None),
        ("length_penalty", -5.1), ("length_penalty", 6), ("length_penalty", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_number_is_explained_with_the_name_of_its_field(
    name: str, value: object, language: str
) -> None:
    with pytest.raises(BadParameter) as caught:
        parse(panel(**{name: value}), CARD, language)
    words = error_text(language, caught.value)
    assert text(language, f"ui_{name}") in words
    assert "{" not in words
    assert len(words) < 200


@pytest.mark.parametrize("value", ["-1", "1.5", "abc", str(2**63), "9" * 500, "٣", 1.5, True])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_seed_is_explained(value: object, language: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse(panel(seed=value), CARD, language)
    words = error_text(language, caught.value)
    assert str(value)[:40] in words
    assert str(2**63 - 1) in words


@pytest.mark.parametrize(("value", "seed"), [("", None), (None, None), (" ", None), (0, 0), (str(2**63 - 1), 2**63 - 1)])  # fmt: skip
def test_a_right_seed(value: object, seed: int | None) -> None:
    assert parse(panel(seed=value), CARD, "en").sampling.seed == seed


@pytest.mark.parametrize("stop", ["x" * 201, "\n".join("abcdefghijklmnopq")])
@pytest.mark.parametrize("language", LANGUAGES)
def test_too_many_or_too_long_stop_strings_are_explained(stop: str, language: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse(panel(stop=stop), CARD, language)
    words = error_text(language, caught.value)
    assert "16" in words
    assert "200" in words


def test_an_unknown_layout_is_the_models_own() -> None:
    assert parse(panel(layout="sideways"), CARD, "en").layout is None
    assert parse(panel(layout=None), CARD, "en").layout is None


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(FIELDS), JSON)
def test_any_value_is_taken_or_refused_with_an_explanation(name: str, value: object) -> None:
    try:
        made = parse(panel(**{name: value}), CARD, "en")
    except BadParameter as error:
        words = error_text("zh", error)
    else:
        words = str(made.sampling.checked())
    assert words


def test_a_retry_can_come_out_differently() -> None:
    greedy = parse(panel(seed="5"), CARD, "en")
    again, changed = for_retry(greedy)
    assert changed
    assert again.sampling.temperature > 0
    assert again.sampling.seed is None
    sampled = parse(panel(temperature=0.2, seed="5"), CARD, "en")
    again, changed = for_retry(sampled)
    assert not changed
    assert again.sampling == dataclasses.replace(sampled.sampling, seed=None)


def test_a_retry_of_a_beam_search_samples_its_beams() -> None:
    again, changed = for_retry(parse(panel(num_beams=5, length_penalty=2.0), CARD, "en"))
    assert changed
    assert (again.sampling.num_beams, again.sampling.length_penalty) == (5, 2.0)
    assert again.sampling.temperature > 0


# --- what the browser kept -------------------------------------------------------------------------


def test_kept_values_come_back() -> None:
    values = panel(temperature=0.4, top_k=7, seed="3", stop="a\nb", layout="keep", num_beams=3)
    assert restored(json.dumps(values), CARD) == values
    assert restored("", CARD) is None


def test_values_kept_before_there_were_beams_come_back() -> None:
    own = dataclasses.replace(CARD, generation=SamplingParams(length_penalty=2.0))
    kept = [0.4, 7, 1, 1.5, 64, "3", "a", "keep"]
    assert restored(json.dumps(kept), own) == (*kept, 1, 2.0)
    assert restored(json.dumps(kept[:7]), own) is None
    assert restored(json.dumps([*kept, 1]), own) is None


def test_a_kept_layout_that_this_model_has_not_becomes_its_own() -> None:
    other = dataclasses.replace(CARD, layouts=("refresh",), default_layout="refresh")
    kept = restored(json.dumps(panel(temperature=0.4, layout="keep")), other)
    assert kept == panel(temperature=0.4, layout="refresh")


@settings(deadline=None, max_examples=200)
@given(st.text() | JSON.map(json.dumps) | st.lists(JSON, min_size=8, max_size=10).map(json.dumps))
@example("[" * 50_000)
@example("[0, Infinity, 1, 1, 16, null, null, null]")
@example("[0, 1e999, 1, 1, 16, null, null, null]")
@example("[0, 0, 1, 1, 16, null, {}, null]")
@example("[0, 0, 1, 1, 16, null, null, []]")
@example("[0, 0, 1, 1, 16, null, null, null, Infinity, NaN]")
@example("[0, 0, 1, 1, 16, null, null, null, [], {}]")
def test_whatever_the_browser_kept_never_breaks_the_page(kept: str) -> None:
    values = restored(kept, CARD)
    if values is not None:
        parse(values, CARD, "en")
        assert values[FIELDS.index("layout")] in CARD.layouts
        assert all(value is None or isinstance(value, int | float | str) for value in values)
