"""Choosing the next tokens: LAVIS's beams, penalties and nucleus."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from instructblip.beams import TOP_K, Rules, draw, make_chooser, penalise, restrict

CASES = json.loads(Path(__file__).with_name("beams_4_33.json").read_text())


def logits_after(prompt: int, ids: list[int], case: dict[str, Any]) -> Tensor:
    """Made-up logits that depend on the prompt and the last two ids, in exact integers."""
    v = torch.arange(case["vocabulary"])
    before = ids[-2] if len(ids) > 1 else 0
    h = case["salt"] * 7919 + prompt * 611953 + ids[-1] * 104729 + before * 1299709 + 1
    h %= 1000003
    x = (h + v * 154858) % 1000003 * (h + v * v * 9973 + 7) % 1000003
    return (x.double() / 1000003 * case["scale"]).float()


def run(rules: Rules, case: dict[str, Any], beams: bool) -> list[list[int]]:
    rows = [[1] for _ in range(case["prompts"] * rules.width)]
    chooser = make_chooser(rules, case["prompts"], beams)
    while True:
        logits = [logits_after(i // rules.width, row, case) for i, row in enumerate(rows)]
        ids, sources = chooser.advance(torch.stack(logits))
        if chooser.done:
            return chooser.answers()
        come_from = range(len(rows)) if sources is None else sources.tolist()
        rows = [[*rows[s], i] for s, i in zip(come_from, ids.tolist(), strict=True)]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_ids_are_those_of_the_transformers_that_lavis_ran_on(case: dict[str, Any]) -> None:
    """The file holds what ``generate`` of transformers 4.33.2 returned on the logits above."""
    p = case["params"]
    beams = p["num_beams"] > 1
    rules = Rules(
        end_id=2, width=p["num_beams"], max_length=p["max_length"], min_length=p["min_length"],
        repetition_penalty=p["repetition_penalty"], length_penalty=p["length_penalty"],
        keep=p["num_captions"],
    )  # fmt: skip
    assert run(rules, case, beams) == case["ids"]


def test_the_cases_reach_what_is_special_in_the_old_rules() -> None:
    ended = [c for c in CASES if any(ids[-1] == 2 for ids in c["ids"])]
    assert len(ended) > 30
    assert any(c["params"]["length_penalty"] < 0 for c in ended)
    assert any(len(ids) < c["params"]["max_length"] - 3 for c in ended for ids in c["ids"])
    assert any(c["params"]["num_captions"] > 1 for c in ended)
    assert any(c["prompts"] > 1 for c in ended)


scores_of = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=90)


@given(scores_of, st.floats(0.05, 0.999))
@settings(max_examples=150, deadline=None)
def test_the_nucleus_is_the_fewest_best_that_hold_top_p(scores: list[float], top_p: float) -> None:
    row = torch.tensor([scores])
    kept = torch.isfinite(restrict(row, top_p))[0]
    best = row.topk(min(TOP_K, len(scores))).values[0]
    among = row[0].masked_fill(row[0] < best[-1], -torch.inf).double().softmax(0)
    # Nothing outside is more likely than anything inside.
    if not kept.all():
        assert row[0][kept].min() >= row[0][~kept].max()
    assert among[kept].sum() >= top_p - 1e-5
    # Without its least likely token it would not be enough.
    assert among[kept].sum() - among[kept].min() < top_p + 1e-5


@given(scores_of, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_nucleus_keeps_the_least_number(scores: list[float], least: int) -> None:
    least = min(least, len(scores))
    kept = torch.isfinite(restrict(torch.tensor([scores]), 0.0, least=least))
    assert int(kept.sum()) >= least
    assert kept[0, torch.tensor(scores).argmax()] or scores.count(max(scores)) > 1


def test_top_k_bounds_the_nucleus_even_at_top_p_1() -> None:
    row = torch.arange(200.0)[None] / 100
    assert int(torch.isfinite(restrict(row, 1.0)).sum()) == TOP_K == 50
    assert int(torch.isfinite(restrict(row, 1.0, top_k=0)).sum()) == 200


def test_a_draw_is_without_replacement_and_follows_the_distribution() -> None:
    generator = torch.Generator().manual_seed(3)
    row = torch.tensor([[0.6, 0.3, 0.1, 0.0]]).log().repeat(4000, 1)
    drawn = draw(row, 3, generator)
    assert all(set(ids) == {0, 1, 2} for ids in drawn.tolist())
    first = torch.bincount(drawn[:, 0], minlength=4) / 4000
    assert torch.allclose(first, torch.tensor([0.6, 0.3, 0.1, 0.0]), atol=0.03)
    # Tokens 600 nats apart are still told apart.
    assert draw(torch.tensor([[0.0, -600.0, -torch.inf]]), 2, generator).tolist() == [[0, 1]]


def sampling(**changes: Any) -> Rules:
    values = {
        "end_id": 2, "width": 3, "max_length": 9, "min_length": 1, "repetition_penalty": 1.0,
        "sampling": True, "top_p": 0.6, "seed": 4, "keep": 2,
    }  # fmt: skip
    return Rules(**{**values, **changes})


SAMPLED = {"vocabulary": 20, "prompts": 2, "salt": 99, "scale": 3.0}


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.6, 0.95]))
@settings(max_examples=40, deadline=None)
def test_sampled_ids_come_from_the_nucleus(seed: int, top_p: float) -> None:
    for row in run(sampling(seed=seed, top_p=top_p), SAMPLED, False)[:3]:  # of the first prompt
        for place, token in enumerate(row):
            logits = logits_after(0, [1, *row[:place]], SAMPLED)[None]
            assert torch.isfinite(restrict(logits, top_p))[0, token]


def test_sampled_beams_come_from_the_nucleus_of_each_beam() -> None:
    for seed in range(20):
        for ids in run(sampling(top_p=0.0, seed=seed), SAMPLED, True)[:2]:  # of the first prompt
            for place, token in enumerate(ids):
                logits = logits_after(0, [1, *ids[:place]], SAMPLED)
                assert token in logits.topk(2).indices


@pytest.mark.parametrize("beams", [False, True])
def test_a_seed_repeats_and_seeds_differ(beams: bool) -> None:
    first = run(sampling(), SAMPLED, beams)
    assert first == run(sampling(), SAMPLED, beams)
    assert any(run(sampling(seed=s), SAMPLED, beams) != first for s in range(5, 9))
    assert len(first) == (4 if beams else 6)


def test_temperature_flattens() -> None:
    cold = {tuple(run(sampling(temperature=0.01, seed=s), SAMPLED, False)[0]) for s in range(8)}
    hot = {tuple(run(sampling(temperature=5.0, top_p=1.0, seed=s), SAMPLED, False)[0]) for s in range(8)}  # fmt: skip
    assert len(cold) == 1
    assert len(hot) > 4


def test_the_penalty_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    scores = torch.tensor([[3.0, -1.0, 2.0, -4.0]])
    penalised = penalise(scores.clone(), torch.tensor([[0, 0, 3]]), 2.0)
    assert penalised.tolist() == [[1.5, -1.0, 2.0, -8.0]]


def test_a_sampled_row_ends_by_itself() -> None:
    chooser = make_chooser(sampling(width=2, max_length=4), 1, False)
    end = torch.tensor([-torch.inf, -torch.inf, 0.0, -torch.inf])
    go_on = torch.tensor([-torch.inf, -torch.inf, -torch.inf, 0.0])
    chooser.advance(torch.stack([end, go_on]))
    assert not chooser.done
    chooser.advance(torch.stack([go_on, end]))
    assert chooser.done
    assert chooser.answers() == [[2], [3, 2]]
