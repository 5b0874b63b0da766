"""Choosing tokens."""

import pytest
import torch

from instructblip.engine.base import SamplingParams
from instructblip.engine.sampling import Sampler
from instructblip.errors import BadParameter, DeviceError


def draws(params: SamplingParams, logits: list[float], n: int = 300) -> set[int]:
    sampler = Sampler(params)
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
        sampler = Sampler(SamplingParams(temperature=1, seed=seed))
        return [sampler.choose(torch.zeros(50)) for _ in range(12)]

    assert run(7) == run(7) != run(8)


def test_the_repetition_penalty_counts_generated_tokens_only() -> None:
    sampler = Sampler(SamplingParams(repetition_penalty=2.0))
    logits = [3.0, 2.0, 1.6]
    assert [sampler.choose(torch.tensor(logits)) for _ in range(3)] == [0, 1, 2]
    negative = Sampler(SamplingParams(repetition_penalty=2.0))
    assert [negative.choose(torch.tensor([-1.0, -1.5])) for _ in range(2)] == [0, 1]


def test_nan_is_an_error_and_not_an_answer() -> None:
    with pytest.raises(DeviceError, match="NaN"):
        Sampler(SamplingParams()).choose(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1), ("temperature", float("nan")), ("top_p", 0), ("top_k", -1),
        ("repetition_penalty", 0), ("max_new_tokens", 0), ("seed", -5), ("temperature", "hot"),
        ("stop", ("",)), ("max_new_tokens", True),
    ],
)  # fmt: skip
def test_absurd_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadParameter, match=name):
        SamplingParams(**{name: value}).checked()
