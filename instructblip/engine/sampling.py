"""Choosing the next token of one request."""

from __future__ import annotations

import torch
from torch import Tensor

from instructblip.engine.base import SamplingParams
from instructblip.errors import DeviceError


class Sampler:
    """Holds one request's generator and the ids it has generated."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)
        self._seen: set[int] = set()

    def choose(self, logits: Tensor) -> int:
        """The next id from logits [vocabulary] (fp32, any device).

        Raises:
            DeviceError: the logits are not numbers; this request fails, others go on.
        """
        logits = logits.cpu()
        if torch.isnan(logits).any() or not torch.isfinite(logits).any():
            raise DeviceError(
                "The model's output is not a number (NaN): an overflow, or damaged weights. "
                "Try --dtype fp32 or bf16, or load the weights again.",
                code="not_finite",
            )
        self._penalise(logits)
        token = self._greedy(logits) if self._params.temperature == 0 else self._draw(logits)
        self._seen.add(token)
        return token

    def _penalise(self, logits: Tensor) -> None:
        """CTRL's repetition penalty (arXiv:1909.05858) over generated ids only, as in LAVIS."""
        penalty = self._params.repetition_penalty
        if penalty != 1.0 and self._seen:
            ids = torch.tensor(sorted(self._seen))
            values = logits[ids]
            logits[ids] = torch.where(values > 0, values / penalty, values * penalty)

    @staticmethod
    def _greedy(logits: Tensor) -> int:
        return int(logits.argmax())

    def _draw(self, logits: Tensor) -> int:
        p = self._params
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
        return int(ids[torch.multinomial(logits.softmax(-1), 1, generator=self._generator)])
