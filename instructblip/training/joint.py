"""Stage B: Q-Former and language model learn to look things up and to answer; the ViT follows.

Beside the language loss, the Q-Former's last cross-attention is told where to look (the recipe
and its weights come from the project's own prototype; see the model card). The helpers live in
:class:`Probes` and are thrown away: what ships is transformers' stock model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertTokenizer

from instructblip.scenes import COLOURS
from instructblip.training.batches import CELLS, IMAGE, Batch
from instructblip.training.language import QUERIES, WIDTH, build
from instructblip.training.vision import DenseHeads, PatchTargets

GROUP_ONE, GROUP_TWO = slice(16, 20), slice(20, 24)
HEADS = 2  # of the last cross-attention, told where to look
POSITIONS = 16_384  # of the language model's rows that run together
WEIGHTS = {
    "language": 1.0, "attention": 1.0, "ground": 1.0, "grid": 0.25, "dense": 0.2,
    "cell": 0.5, "box": 0.7, "count": 0.25, "relation": 0.5, "compare": 0.5, "ratio": 0.5,
}  # fmt: skip


class Probes(nn.Module):
    """Heads that only training uses."""

    words: Tensor

    def __init__(self, classes: int, words: Tensor) -> None:
        super().__init__()
        self.register_buffer("words", words, persistent=False)  # [classes, words] of each name
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.align = nn.Linear(WIDTH, HEADS * WIDTH // 4)
        self.grid = nn.Linear(WIDTH, classes)
        self.grid_colour = nn.Linear(WIDTH, len(COLOURS))
        self.cell = nn.Linear(WIDTH, 10)
        self.box = nn.Linear(WIDTH, 3)
        self.count = nn.Linear(WIDTH, 6)
        self.relation = nn.Linear(WIDTH, 2)
        self.compare = nn.Linear(WIDTH, 2)
        self.ratio = nn.Linear(WIDTH, 1)
        self.dense = DenseHeads(WIDTH, classes)


@dataclass(slots=True)
class Captured:
    """Queries [N, 24, 192] and keys [N, 50, 192] of the last cross-attention, by hooks."""

    query: Tensor | None = None
    key: Tensor | None = None


class JointModel(nn.Module):
    """The model in training."""

    def __init__(self, folder: Path, names: dict[str, int], bert: BertTokenizer) -> None:
        super().__init__()
        self.model = build(folder)
        # On a CPU and at these lengths plain attention trains 1.6 times as fast as the fused one.
        self.attend("eager")
        table = torch.zeros(len(names), 4, dtype=torch.long)
        for name, index in names.items():
            ids = bert(name, add_special_tokens=False)["input_ids"][:4]
            table[index, : len(ids)] = torch.tensor(ids)
        self.probes = Probes(len(names), table)
        self._seen = Captured()
        layers = [
            x for x in self.model.qformer.encoder.layer if getattr(x, "has_cross_attention", False)
        ]
        attention = layers[-1].crossattention.attention
        attention.query.register_forward_hook(lambda m, i, o: setattr(self._seen, "query", o))
        attention.key.register_forward_hook(lambda m, i, o: setattr(self._seen, "key", o))

    def attend(self, how: str) -> None:
        """Choose transformers' way to compute attention: eager or sdpa."""
        self.model.vision_model.set_attn_implementation(how)
        self.model.qformer.set_attn_implementation(how)
        self.model.language_model.set_attn_implementation(how)

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.model.query_tokens.device

    def loss(
        self, images: Tensor, truth: PatchTargets, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its parts; ``images`` [P, 3, 112, 112]."""
        features = self.model.vision_model(images).last_hidden_state
        seen = features[batch.pictures]
        queries = torch.ones(len(seen), QUERIES, dtype=torch.long, device=self.device)
        states = self.model.qformer(
            input_ids=batch.words, attention_mask=torch.cat([queries, batch.word_mask], 1),
            query_embeds=self.model.query_tokens.expand(len(seen), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones_like(seen[..., 0], dtype=torch.long),
        ).last_hidden_state[:, :QUERIES]  # fmt: skip
        parts = {
            "language": self._language(states, batch),
            "attention": self._attention(batch),
            "ground": self._grounding(batch),
            **self._lookup(states.float(), batch),
            "grid": self._grid(states.float(), batch),
            "dense": self.probes.dense.loss(features, truth)[0],
        }
        total = torch.stack([WEIGHTS[k] * v for k, v in parts.items()]).sum()
        return total, {k: v.detach() for k, v in parts.items()}

    def _language(self, states: Tensor, batch: Batch) -> Tensor:
        tokens = self.model.language_projection(states).flatten(0, 1)
        llm = self.model.language_model
        slots = batch.ids == IMAGE
        token_of = (slots.flatten().cumsum(0) - 1).clamp(min=0).view_as(batch.ids)
        losses, shares = [], []
        for chosen, longest in together(batch.lengths, POSITIONS):
            rows = chosen.to(self.device)
            embeds = llm.get_input_embeddings()(batch.ids[rows, :longest].clamp(min=0))
            shown = tokens[token_of[rows, :longest]]
            embeds = torch.where(slots[rows, :longest, None], shown, embeds.to(shown.dtype))
            hidden = llm.model(inputs_embeds=embeds, use_cache=False)
            goals = batch.targets[rows, :longest]
            here = goals >= 0
            logits = llm.lm_head(hidden.last_hidden_state[here]).float()
            share = batch.weights[rows, :longest][here]
            losses.append((cross_entropy(logits, goals[here], reduction="none") * share).sum())
            shares.append(share.sum())
        return torch.stack(losses).sum() / torch.stack(shares).sum()

    def _attention(self, batch: Batch) -> Tensor:
        query, key = (_heads(x) for x in (self._seen.query, self._seen.key))
        scores = (query @ key.transpose(-1, -2)) / query.shape[-1] ** 0.5  # [N, heads, 24, 50]
        share = scores.float().softmax(-1)
        losses = []
        for index, group in enumerate((GROUP_ONE, GROUP_TWO)):
            goal = batch.attend[:, index]
            asked = goal.any(-1)
            mass = (share[asked][:, :, group] * goal[asked][:, None, None]).sum(-1)
            losses.append(-(mass + 1e-6).log().mean(dim=(1, 2)))
        return torch.cat(losses).mean()

    def _grounding(self, batch: Batch) -> Tensor:
        assert self._seen.key is not None
        # One turn of each picture is enough: keys do not depend on the text.
        first = torch.zeros(len(batch.patches), dtype=torch.long, device=self.device)
        first[batch.pictures] = torch.arange(len(batch.pictures), device=self.device)
        keys = self._seen.key[first, 1:, : HEADS * WIDTH // 4].float()
        table = self.model.qformer.embeddings.word_embeddings.weight
        there = (self.probes.words > 0).float()[..., None]
        words = (table[self.probes.words] * there).sum(1) / there.sum(1).clamp(min=1)
        named = nn.functional.normalize(self.probes.align(words).float(), dim=-1)
        logits = self.probes.scale * (nn.functional.normalize(keys, dim=-1) @ named.T)
        goal = batch.patches.flatten()
        weight = torch.where(goal == 0, 0.25, 1.0)
        each = cross_entropy(logits.flatten(0, 1), goal, reduction="none")
        return (each * weight).sum() / weight.sum()

    def _lookup(self, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the queries of the two groups should know of the things that were named."""
        probes, lead = self.probes, GROUP_ONE.start
        places = states[:, [lead, GROUP_TWO.start]]  # [N, 2, 192]
        placed = (batch.cell >= 0) & (batch.cell < 9)
        off = (probes.box(places).float() - batch.box)[placed].abs().mean(0)
        pairs = batch.holds[:, 1] >= 0
        ratio = probes.ratio(states[pairs, lead + 3]).float()[:, 0]
        return {
            "cell": cross_entropy(probes.cell(places).float().flatten(0, 1), batch.cell.flatten()),
            "box": off.sum(),
            "count": cross_entropy(probes.count(states[:, lead + 1]).float(), batch.count),
            "relation": _of_some(probes.relation(states[:, lead + 2]), batch.holds[:, 0]),
            "compare": _of_some(probes.compare(states[:, lead + 3]), batch.holds[:, 1]),
            "ratio": (ratio - batch.ratio[pairs]).abs().sum() / pairs.sum().clamp(min=1),
        }

    def _grid(self, states: Tensor, batch: Batch) -> Tensor:
        cells = states[:, : CELLS * CELLS]
        goal, hue = (
            batch.grid[batch.pictures].flatten(),
            batch.grid_colour[batch.pictures].flatten(),
        )
        weight = torch.where(goal == 0, 0.25, 1.0)
        each = cross_entropy(self.probes.grid(cells).float().flatten(0, 1), goal, reduction="none")
        loss = (each * weight).sum() / weight.sum()
        return loss + cross_entropy(self.probes.grid_colour(cells).float().flatten(0, 1), hue)


def together(lengths: Tensor, positions: int) -> list[tuple[Tensor, int]]:
    """Rows that run together, and the longest's length: rows of like length, for padding costs time.

    ``lengths`` [B]: of the rows. Each group has about so many ``positions``.
    """
    order = lengths.argsort(descending=True)
    sizes = lengths[order].tolist()
    groups, at = [], 0
    while at < len(sizes):
        many = max(positions // sizes[at], 1)
        groups.append((order[at : at + many], sizes[at]))
        at += many
    return groups


def _of_some(logits: Tensor, goal: Tensor) -> Tensor:
    """Mean cross-entropy where a goal is given; 0 where none is."""
    asked = (goal >= 0).sum().clamp(min=1)
    return cross_entropy(logits.float(), goal, ignore_index=-100, reduction="sum") / asked


def _heads(x: Tensor | None) -> Tensor:
    """[N, L, 192] → the first heads, [N, HEADS, L, 48]."""
    assert x is not None
    return x.unflatten(-1, (4, WIDTH // 4)).transpose(1, 2)[:, :HEADS]
