"""Dialogues → tensors: the ``append`` layout at run time, with the truth for each loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.conversation import qformer_text
from instructblip.engine.base import PastTurn
from instructblip.properties import Properties
from instructblip.scenes import COLOURS, DIGITS, LETTERS, SHAPES, Scene
from instructblip.training import chinese
from instructblip.training.dialogues import Exchange
from instructblip.training.language import QUERIES
from instructblip.training.speech import NUMBERS
from instructblip.training.vision import GRID, log_size, patch_owner

CELLS = 4  # the grid loss reads the scene as 4×4 cells
IMAGE = -1
_KEY_WORDS = {
    *NUMBERS, *COLOURS, *SHAPES, "yes", "no", "left", "right", "top", "bottom", "middle", "bigger", "smaller",
    *LETTERS, *DIGITS, *"有没是不左右上下中边角大小一二三四五两个", *chinese.COLOURS.values(),
}  # fmt: skip


@dataclass(slots=True)
class Batch:
    """``ids`` [B, L] (-1: image slot), ``targets`` and ``weights`` [B, L]; per turn the rest.

    ``pictures`` [N]: each turn's picture; ``words``/``word_mask`` [N, W]: Q-Former text;
    ``attend`` [N, 2, 50]: patches (0 is CLS) that two groups of queries should look at, zero rows
    where nothing is asked of them; ``cell`` [N, 2] (9: absent, -100: none), ``box`` [N, 2, 3] with
    ``cell`` < 9 (centre and log size), ``count`` [N] and ``holds`` [N, 2] (-100: none): whether a
    relation is true, whether the first of two is the answer; ``ratio`` [N]: the two's log sizes,
    one less the other; ``grid``/``grid_colour`` [P, 16]; ``patches`` [P, 49] names.
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    pictures: Tensor
    words: Tensor
    word_mask: Tensor
    attend: Tensor
    cell: Tensor
    box: Tensor
    count: Tensor
    holds: Tensor
    ratio: Tensor
    grid: Tensor
    grid_colour: Tensor
    patches: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(getattr(self, f.name).to(device) for f in fields(self)))


class Collator:
    """Builds batches with the run time's own tokenizers and rules."""

    def __init__(self, tokenizer: Tokenizer, bert: object, names: dict[str, int]) -> None:
        self._tokenizer = tokenizer
        self._bert = bert
        self._names = names
        self._properties = Properties("training", qformer_text="question_then_history")
        self._cache: dict[str, list[int]] = {}
        self._heavy = {
            i for i in range(tokenizer.size)
            if tokenizer.decode([i]).strip(" .。").lower() in {w.lower() for w in _KEY_WORDS}
        }  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """Language model ids, remembered."""
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = self._tokenizer.encode(text)
        return self._cache[text]

    def batch(
        self, scenes: Sequence[Scene], talks: Sequence[Sequence[tuple[int, Exchange]]]
    ) -> Batch:
        """Each dialogue pairs its exchanges with the index of the scene that they are about."""
        rows: list[tuple[list[int], list[int], list[float]]] = []
        texts: list[str] = []
        pictures: list[int] = []
        exchanges: list[Exchange] = []
        for talk in talks:
            dialogue = [exchange for _, exchange in talk]
            rows.append(self._row(dialogue))
            texts += self._texts(dialogue)
            pictures += [scene for scene, _ in talk]
            exchanges += dialogue
        ids, targets, weights = (
            _pad([r[k] for r in rows], fill) for k, fill in ((0, 2), (1, -100), (2, 0))
        )
        coded = self._bert(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")  # type: ignore[operator]
        cell, box, count, attend = self._lookups([scenes[p] for p in pictures], exchanges)
        holds, ratio = _pairs([scenes[p] for p in pictures], exchanges)
        return Batch(
            ids.long(), targets.long(), weights.float(), torch.tensor(pictures),
            coded["input_ids"], coded["attention_mask"], attend, cell, box, count, holds, ratio,
            *self._grids(scenes),
        )  # fmt: skip

    def _row(self, dialogue: Sequence[Exchange]) -> tuple[list[int], list[int], list[float]]:
        ids: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        for n, turn in enumerate(dialogue):
            question, answer = self.encode(turn.question), self.encode(turn.answer)
            ids += [IMAGE] * QUERIES + [2, *question, *answer]
            goal = [*answer, 2]
            targets += [-100] * (QUERIES + len(question)) + goal
            share = 1.0 if n == len(dialogue) - 1 else 0.7
            weights += [0.0] * (QUERIES + len(question))
            weights += [share * (3.0 if t in self._heavy else 1.0) for t in goal]
        return ids, targets, weights

    def _texts(self, dialogue: Sequence[Exchange]) -> list[str]:
        past: list[PastTurn] = []
        texts = []
        for turn in dialogue:
            texts.append(qformer_text(self._properties, turn.question, past))
            past.append(PastTurn("", turn.question, "", (), turn.answer, ""))
        return texts

    def _lookups(
        self, scenes: Sequence[Scene], exchanges: Sequence[Exchange]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n = len(exchanges)
        cell, count = torch.full((n, 2), -100), torch.full((n,), -100)
        box, attend = torch.zeros(n, 2, 3), torch.zeros(n, 2, GRID * GRID + 1)
        for i, (scene, turn) in enumerate(zip(scenes, exchanges, strict=True)):
            if turn.kind == "outside":
                continue
            owner = patch_owner(scene)
            if turn.named:
                attend[i, 0] = _look(owner, turn.first)
                count[i] = len(turn.first)
                cell[i, 0] = 9
            elif turn.kind == "count":
                count[i] = len(turn.first)
            if turn.second:
                attend[i, 1] = _look(owner, turn.second)
            for group, meant in enumerate((turn.first if turn.named else (), turn.second)):
                if len(meant) == 1:
                    thing = scene.objects[meant[0]]
                    cell[i, group] = thing.cell[1] * 3 + thing.cell[0]
                    box[i, group] = torch.tensor([*thing.centre, log_size(thing)])
                elif meant:
                    cell[i, group] = -100
        return cell, box, count, attend

    def _grids(self, scenes: Sequence[Scene]) -> tuple[Tensor, Tensor, Tensor]:
        grid = torch.zeros(len(scenes), CELLS * CELLS, dtype=torch.long)
        colour = torch.full((len(scenes), CELLS * CELLS), -100)
        patches = torch.zeros(len(scenes), GRID * GRID, dtype=torch.long)
        hues = {c: i for i, c in enumerate(COLOURS)}
        for b, scene in enumerate(scenes):
            owner = torch.from_numpy(patch_owner(scene))
            for i, thing in enumerate(scene.objects):
                x, y = thing.centre
                at = int(y * CELLS) * CELLS + int(x * CELLS)
                grid[b, at] = self._names[thing.name]
                if thing.colour:
                    colour[b, at] = hues[thing.colour]
                patches[b, owner == i] = self._names[thing.name]
        return grid, colour, patches


def _pairs(scenes: Sequence[Scene], exchanges: Sequence[Exchange]) -> tuple[Tensor, Tensor]:
    """``holds`` and ``ratio`` of a :class:`Batch`."""
    holds, ratio = torch.full((len(exchanges), 2), -100), torch.zeros(len(exchanges))
    for i, (scene, turn) in enumerate(zip(scenes, exchanges, strict=True)):
        if turn.holds is None:
            continue
        holds[i, int(turn.kind == "compare")] = int(turn.holds)
        one, two = (log_size(scene.objects[group[0]]) for group in (turn.first, turn.second))
        ratio[i] = one - two
    return holds, ratio


def _look(owner: np.ndarray, things: tuple[int, ...]) -> Tensor:
    """[50] patches of these objects; CLS alone when there is none."""
    mask = torch.zeros(GRID * GRID + 1)
    mask[1:] = torch.from_numpy(np.isin(owner, things).astype(np.float32))
    if not mask.any():
        mask[0] = 1
    return mask


def _pad(rows: Sequence[Sequence[float]], fill: int) -> Tensor:
    longest = max(len(r) for r in rows)
    return torch.tensor([[*r, *[fill] * (longest - len(r))] for r in rows])
