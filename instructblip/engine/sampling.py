"""Choosing the next token of one request: a pure function of logits, seed and position."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from instructblip.beams import penalise
from instructblip.engine.base import SamplingParams

# The id with which LAVIS's generation starts; it is never read, but counts as generated.
LAVIS_START = 1
_MIX = 0x9E3779B97F4A7C15  # odd: neighbouring seeds and positions get unlike generator states


def finite(logits: Tensor) -> list[bool]:
    """For each row of logits [n, vocabulary]: whether it can be sampled from."""
    # -inf marks ids that are no text; NaN and +inf are faults.
    good = (logits.amax(-1).isfinite()) & ~logits.isnan().any(-1)
    return list(good.tolist())


def greedy(logits: Tensor, samplers: dict[int, Sampler]) -> dict[int, int]:
    """Row → the best id of logits [n, vocabulary], for rows of which no more is asked.

    All at once, on their device; rows that draw, or that tell their probabilities, are left out.
    """
    plain = {n: sampler for n, sampler in samplers.items() if sampler.plain}
    if not plain:
        return {}
    rows = logits[list(plain)]
    restrain(rows, list(plain.values()))
    return dict(zip(plain, rows.argmax(-1).tolist(), strict=True))


def restrain(logits: Tensor, samplers: Sequence[Sampler]) -> None:
    """Change logits [n, vocabulary]: minimum lengths and repetition penalties."""
    early = [n for n, s in enumerate(samplers) if len(s.ids) < s.params.min_new_tokens]
    if early:
        logits[early, samplers[0].end] = -torch.inf
    penalties = [[sampler.params.repetition_penalty] for sampler in samplers]
    if penalties != [[1.0]] * len(samplers):
        longest = 1 + max(len(sampler.ids) for sampler in samplers)
        padded = [[LAVIS_START] * (longest - len(s.ids)) + s.ids for s in samplers]
        history, factor = (torch.tensor(x).to(logits.device) for x in (padded, penalties))
        penalise(logits, history, factor)


class Sampler:
    """One request's parameters and the ids it has generated."""

    def __init__(self, params: SamplingParams, end_id: int) -> None:
        self.params, self.end = params, end_id
        self._seed = secrets.randbits(63) if params.seed is None else params.seed
        self._generator = torch.Generator()
        self.ids: list[int] = []
        self.logprobs: list[float] = []

    @property
    def plain(self) -> bool:
        """Whether the next token is simply the best one, which :func:`greedy` finds."""
        return self.params.temperature == 0 and not self.params.logprobs

    def take(self, token: int) -> int:
        """Count a token that was chosen."""
        self.ids.append(token)
        return token

    def choose(self, logits: Tensor) -> int:
        """The next id from logits [vocabulary] (fp32, any device); they may be changed."""
        p, logits = self.params, logits.float().cpu()
        if p.logprobs:
            plain = logits.log_softmax(-1)
        restrain(logits[None], [self])
        token = int(logits.argmax()) if p.temperature == 0 else self._draw(logits)
        if p.logprobs:
            self.logprobs.append(float(plain[token]))
        return self.take(token)

    def _draw(self, logits: Tensor) -> int:
        p = self.params
        logits = logits / p.temperature
        ids = torch.arange(logits.shape[0])
        if 0 < p.top_k < logits.shape[0]:
            logits, ids = logits.topk(p.top_k)
        if p.top_p < 1.0:
            logits, order = logits.sort(descending=True)
            ids = ids[order]
            # A token stays if the ones before it hold less than top_p; the first always stays.
            before = logits.softmax(-1).cumsum(-1) - logits.softmax(-1)
            keep = before < p.top_p
            logits, ids = logits[keep], ids[keep]
        noise = torch.empty_like(logits).exponential_(generator=self._noise())
        return int(ids[(logits.softmax(-1) / noise).argmax()])

    def _noise(self) -> torch.Generator:
        """Keyed by seed and position: whoever shares the batch, the answer is the same."""
        mixed = (self._seed + 1) * _MIX + len(self.ids) * 0xD1B54A32D192ED03
        return self._generator.manual_seed(mixed % 2**63)
