"""Choosing tokens."""

import pytest
import torch

from instructblip.engine.base import SamplingParams
from instructblip.engine.sampling import Sampler, finite
from instructblip.errors import BadParameter

END = 2


def draws(params: SamplingParams, logits: list[float], n: int = 300) -> set[int]:
    sampler = Sampler(params, END)
    return {sampler.choose(torch.tensor(logits)) for _ in range(n)}


def test_greedy_takes_the_best() -> None:
    assert draws(SamplingParams(), [0.0, 3.0, 1.0], 3) == {1}


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = [2.0, 1.9, 1.8, -1.0]
    assert draws(SamplingParams(temperature=1, top_k=2, seed=1), logits) == {0, 1}
    assert draws(SamplingParams(temperature=1, top_p=0.5, seed=1), logits) == {0, 1}
    assert draws(SamplingParams(temperature=5, seed=1), logits) == {0, 1, 2, 3}
    assert draws(SamplingParams(temperature=1, top_p=0.01, seed=1), logits) == {0}


def test_a_seed_repeats_and_seeds_differ() -> None:
    def run(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1, seed=seed), END)
        return [sampler.choose(torch.zeros(50)) for _ in range(12)]

    assert run(7) == run(7) != run(8)


def test_noise_hangs_on_seed_and_position_not_on_how_one_came_there() -> None:
    params = SamplingParams(temperature=1, seed=7)
    whole, later = Sampler(params, END), Sampler(params, END)
    ids = [whole.choose(torch.zeros(50)) for _ in range(8)]
    for token in ids[:5]:  # as after an eviction: the ids are known, their noise was never drawn
        later.take(token)
    assert [later.choose(torch.zeros(50)) for _ in range(3)] == ids[5:]


def test_without_a_seed_two_requests_differ() -> None:
    one, two = (Sampler(SamplingParams(temperature=1), END) for _ in range(2))
    assert [one.choose(torch.zeros(500)) for _ in range(9)] != [
        two.choose(torch.zeros(500)) for _ in range(9)
    ]


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    sampler = Sampler(SamplingParams(temperature=1, seed=3), END)
    drawn = torch.tensor([sampler.choose(logits.clone()) for _ in range(4000)])
    shares = drawn.bincount(minlength=4) / 4000
    assert torch.allclose(shares, logits.exp(), atol=0.03)


def test_the_repetition_penalty_counts_generated_tokens_and_laviss_start_token() -> None:
    sampler = Sampler(SamplingParams(repetition_penalty=2.0), END)
    logits = [3.0, 3.2, 2.0, 1.6]
    # Id 1 is penalised from the start (3.2 → 1.6), as LAVIS's invisible start token is.
    assert [sampler.choose(torch.tensor(logits)) for _ in range(3)] == [0, 2, 1]
    negative = Sampler(SamplingParams(repetition_penalty=2.0), END)
    assert [negative.choose(torch.tensor([-1.0, -9.0, -1.5])) for _ in range(2)] == [0, 2]


def test_an_answer_does_not_end_before_min_new_tokens() -> None:
    sampler = Sampler(SamplingParams(min_new_tokens=2), END)
    logits = [0.0, 1.0, 5.0]
    assert [sampler.choose(torch.tensor(logits)) for _ in range(3)] == [1, 1, END]


def test_logprobs_are_those_of_the_plain_distribution() -> None:
    params = SamplingParams(temperature=2, top_k=2, repetition_penalty=2.0, seed=1, logprobs=True)
    sampler, logits = Sampler(params, END), torch.tensor([1.0, 2.0, 3.0])
    for n in range(5):
        token = sampler.choose(logits.clone())
        assert sampler.logprobs[n] == pytest.approx(float(logits.log_softmax(-1)[token]))


def test_rows_that_are_no_numbers_are_found_among_others() -> None:
    nan, inf = float("nan"), float("inf")
    rows = torch.tensor([[1.0, -inf], [1.0, nan], [inf, 1.0], [-inf, -inf], [0.0, 1.0]])
    assert finite(rows) == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1), ("temperature", float("nan")), ("top_p", 0), ("top_k", -1),
        ("repetition_penalty", 0), ("max_new_tokens", 0), ("seed", -5), ("temperature", "hot"),
        ("stop", ("",)), ("max_new_tokens", True), ("min_new_tokens", -1), ("num_beams", 0),
        ("num_beams", 99), ("length_penalty", float("inf")), ("top_p", "most"),
    ],
)  # fmt: skip
def test_absurd_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadParameter, match=name):
        SamplingParams(**{name: value}).checked()
