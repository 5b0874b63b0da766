"""Which tokens come next, by the rules that LAVIS's generation follows.

LAVIS generates from embeddings with transformers 4.28 to 4.33, whose rules current versions have
left: a start token that is counted but never embedded, a repetition penalty that sees only it and
the generated ids, and another scoring of beams. A chooser takes the logits of each step and names
the next token of each row; :mod:`instructblip.generation` runs the model between the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# The start token's id (LLaMA's ``<s>``): bos_token_id of Vicuna's generation_config.json.
START_ID = 1
# LAVIS's generate names no top_k, so its sampling has transformers' default.
TOP_K = 50
# Scores of all but the first beam at the start, so that equal beams do not fill the list.
_UNREACHED = -1e9


@dataclass(frozen=True, slots=True)
class Rules:
    """What a chooser needs: lengths count the start token; ``width`` is rows per prompt.

    ``width`` is the number of beams, or of samples where there are no beams.
    """

    end_id: int
    width: int
    max_length: int
    min_length: int
    repetition_penalty: float
    length_penalty: float = 1.0
    keep: int = 1
    sampling: bool = False
    top_p: float = 1.0
    temperature: float = 1.0
    seed: int | None = None

    def generator(self) -> torch.Generator:
        """Random numbers on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


class Chooser(Protocol):
    """The state of all rows between two steps. A prompt's rows lie side by side."""

    done: bool

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [rows, vocabulary] (fp32, CPU) → next ids [rows], and the rows they go on from.

        The second is None where each row goes on from itself.
        """

    def answers(self) -> list[list[int]]:
        """Generated ids, the end token included where one came, ``keep`` for each prompt."""


def make_chooser(rules: Rules, prompts: int, beams: bool) -> Chooser:
    """The chooser for so many prompts, with or without beams."""
    return Beams(rules, prompts) if beams else Singles(rules, prompts)


def penalise(scores: Tensor, history: Tensor, penalty: float | Tensor) -> Tensor:
    """Make the ids of ``history`` [rows, n] less likely in ``scores`` [rows, vocabulary], in place.

    CTRL's repetition penalty (arXiv:1909.05858); an id counts once, however often it came.
    """
    seen = scores.gather(1, history)
    return scores.scatter_(1, history, torch.where(seen < 0, seen * penalty, seen / penalty))


def restrict(scores: Tensor, top_p: float, top_k: int = TOP_K, least: int = 1) -> Tensor:
    """Scores [rows, vocabulary] with -inf outside the nucleus (arXiv:1904.09751).

    First the ``top_k`` best stay, then the fewest of them that hold ``top_p`` of the probability;
    at least ``least`` stay.
    """
    if top_k:
        worst = scores.topk(min(max(top_k, least), scores.shape[1])).values[:, -1:]
        scores = scores.masked_fill(scores < worst, -torch.inf)
    if top_p >= 1.0:
        return scores
    ordered, order = scores.sort(dim=1)
    # Summed from the least likely, as transformers does: ties at the border fall alike.
    outside = ordered.softmax(1).cumsum(1) <= 1 - top_p
    outside[:, -least:] = False
    return scores.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)


def draw(scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices [rows, count] drawn by softmax(scores) without replacement.

    The Gumbel top-k trick (arXiv:1903.06059): no probability underflows, and -inf comes last.
    """
    waits = torch.empty_like(scores).exponential_(generator=generator)
    waits.clamp_(min=torch.finfo(waits.dtype).tiny)
    return (scores - waits.log()).topk(count).indices


class Singles:
    """Rows that go on by themselves: greedy search, or nucleus sampling."""

    def __init__(self, rules: Rules, prompts: int) -> None:
        self.done = False
        self._rules = rules
        self._history = torch.full((prompts * rules.width, 1), START_ID)
        self._ended = torch.zeros(prompts * rules.width, dtype=torch.bool)
        self._random = rules.generator() if rules.sampling else None

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Choose one id for each row. What ended rows go on with is left out of the answers."""
        rules = self._rules
        scores = penalise(logits, self._history, rules.repetition_penalty)
        if self._history.shape[1] < rules.min_length:
            scores[:, rules.end_id] = -torch.inf
        ids = self._choose(scores)
        self._ended |= ids == rules.end_id
        self._history = torch.cat([self._history, ids[:, None]], dim=1)
        self.done = bool(self._ended.all()) or self._history.shape[1] >= rules.max_length
        return ids, None

    def _choose(self, scores: Tensor) -> Tensor:
        if self._random is None:
            return scores.argmax(1)
        scores = restrict(scores / self._rules.temperature, self._rules.top_p)
        return draw(scores, 1, self._random)[:, 0]

    def answers(self) -> list[list[int]]:
        """Each row up to its end token."""
        return [_until(row, self._rules.end_id) for row in self._history[:, 1:].tolist()]


def _until(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id) + 1] if end_id in ids else ids


class Finished:
    """The best finished beams of one prompt: BeamHypotheses of transformers 4.33."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._worst = 1e9
        self._beams: list[tuple[float, list[int]]] = []

    def add(self, ids: list[int], total: float, ended: bool) -> None:
        """Take a beam. ``ids`` hold the start token but no end token, and their number is the
        length that scores are divided by; ``total`` is the sum of log-probabilities."""
        score = total / len(ids) ** self._rules.length_penalty
        if len(self._beams) == self._rules.width and score <= self._worst:
            return
        self._beams.append((score, [*ids, self._rules.end_id] if ended else ids))
        if len(self._beams) > self._rules.width:
            scores = [score for score, _ in self._beams]
            del self._beams[scores.index(min(scores))]
        self._worst = min(score for score, _ in self._beams)

    def settled(self, best: float, length: int) -> bool:
        """Whether no open beam is expected to do better than the worst in a full list.

        ``best`` is the best of all candidates of this step, those that end included, and
        ``length`` the length with it; the rule looks at the present length only.
        """
        full = len(self._beams) == self._rules.width
        return full and self._worst >= best / length**self._rules.length_penalty

    def best(self) -> list[list[int]]:
        """The ``keep`` best without the start token, best first; of equals the later one."""
        ordered = sorted(self._beams, key=lambda beam: beam[0])
        return [ids[1:] for _, ids in reversed(ordered)][: self._rules.keep]


class Beams:
    """Beam search, or beam sampling, over ``width`` beams for each prompt."""

    def __init__(self, rules: Rules, prompts: int) -> None:
        self.done = False
        self._rules = rules
        self._history = torch.full((prompts * rules.width, 1), START_ID)
        self._scores = torch.zeros(prompts, rules.width)
        if not rules.sampling:
            self._scores[:, 1:] = _UNREACHED
        self._random = rules.generator() if rules.sampling else None
        self._finished = [Finished(rules) for _ in range(prompts)]
        self._settled = [False] * prompts

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Extend the beams by their best candidates, and file those that end."""
        prompts, width = self._scores.shape
        vocabulary = logits.shape[1]
        scores, chosen = self._candidates(self._totals(logits).view(prompts, width * vocabulary))
        ids = torch.full((prompts, width), self._rules.end_id)
        rows = torch.arange(prompts * width).view(prompts, width)
        for prompt in range(prompts):
            if not self._settled[prompt]:
                sources = chosen[prompt] // vocabulary + prompt * width
                tokens = chosen[prompt] % vocabulary
                kept = self._file(prompt, scores[prompt], tokens.tolist(), sources.tolist())
                ids[prompt], rows[prompt] = tokens[kept], sources[kept]
                self._scores[prompt] = scores[prompt, kept]
        self._history = torch.cat([self._history[rows.view(-1)], ids.view(-1, 1)], dim=1)
        self.done = all(self._settled) or self._history.shape[1] >= self._rules.max_length
        return ids.view(-1), rows.view(-1)

    def _totals(self, logits: Tensor) -> Tensor:
        """Sum of log-probabilities [rows, vocabulary] of each beam with each next id."""
        rules = self._rules
        scores = penalise(logits.log_softmax(1), self._history, rules.repetition_penalty)
        if self._history.shape[1] < rules.min_length:
            scores[:, rules.end_id] = -torch.inf
        totals = scores + self._scores.view(-1, 1)
        if not rules.sampling:
            return totals
        # The running sum is divided by the temperature again at each step, as transformers 4.33 does.
        return restrict(totals / rules.temperature, rules.top_p, least=2)

    def _candidates(self, totals: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and indices [prompts, 2 · width], best first: enough if each beam may end."""
        count = 2 * self._rules.width
        if self._random is None:
            scores, chosen = totals.topk(count)
            return scores, chosen
        drawn = draw(totals, count, self._random)
        scores, order = totals.gather(1, drawn).sort(dim=1, descending=True)
        return scores, drawn.gather(1, order)

    def _file(
        self, prompt: int, scores: Tensor, tokens: list[int], sources: list[int]
    ) -> list[int]:
        """File the candidates that end; → places of those that go on."""
        kept: list[int] = []
        finished, width = self._finished[prompt], self._rules.width
        for place, (token, source) in enumerate(zip(tokens, sources, strict=True)):
            if token != self._rules.end_id:
                kept.append(place)
            elif place < width:  # a candidate below the best ``width`` may not end
                finished.add(self._history[source].tolist(), float(scores[place]), True)
            if len(kept) == width:
                break
        length = self._history.shape[1] + 1
        self._settled[prompt] = finished.settled(float(scores.max()), length)
        return kept

    def answers(self) -> list[list[int]]:
        """The best beams; those still open at the end count as they are."""
        width = self._rules.width
        for prompt, finished in enumerate(self._finished):
            if not self._settled[prompt]:
                for beam in range(width):
                    row = self._history[prompt * width + beam]
                    finished.add(row.tolist(), float(self._scores[prompt, beam]), False)
        return [ids for finished in self._finished for ids in finished.best()]
