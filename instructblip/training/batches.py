"""Dialogues → tensors: the run time's layouts and trimming, with the truth for each loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.conversation import context_budget, qformer_text, trim_start
from instructblip.engine.base import PastTurn
from instructblip.properties import Properties
from instructblip.scenes import COLOURS, DIGITS, LETTERS, SHAPES, Scene
from instructblip.training import chinese
from instructblip.training.dialogues import Exchange
from instructblip.training.language import CONTEXT, NEW_TOKENS, QUERIES
from instructblip.training.speech import NUMBERS
from instructblip.training.vision import GRID, log_size, patch_owner

CELLS = 4  # the grid loss reads the scene as 4×4 cells
IMAGE = -1
START = 2  # the token that begins each prompt and ends each answer
_KEY_WORDS = {
    *NUMBERS, *COLOURS, *SHAPES, "yes", "no", "left", "right", "top", "bottom", "middle", "bigger", "smaller",
    *LETTERS, *DIGITS, *"有没是不左右上下中边角大小一二三四五两个", *chinese.COLOURS.values(),
}  # fmt: skip


@dataclass(slots=True)
class Batch:
    """``ids`` [B, L] (-1: image slot), ``targets`` and ``weights`` [B, L]; the rest for each turn
    whose image tokens are in them, in their order.

    ``lengths`` [B]: positions of each row; ``pictures`` [N]: each turn's picture;
    ``words``/``word_mask`` [N, W]: Q-Former text;
    ``attend`` [N, 2, 50]: patches (0 is CLS) that two groups of queries should look at, zero rows
    where nothing is asked of them; ``cell`` [N, 2] (9: absent, -100: none), ``box`` [N, 2, 3] with
    ``cell`` < 9 (centre and log size), ``count`` [N] and ``holds`` [N, 2] (-100: none): whether a
    relation is true, whether the first of two is the answer; ``ratio`` [N]: the two's log sizes,
    one less the other; ``grid``/``grid_colour`` [P, 16]; ``patches`` [P, 49] names.
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
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
        """The same on a device; ``lengths`` stay, for they say what runs together."""
        lengths = self.lengths
        moved = Batch(*(getattr(self, f.name).to(device) for f in fields(self)))
        moved.lengths = lengths
        return moved


@dataclass(frozen=True, slots=True)
class Talk:
    """A dialogue: exchanges, each with the index of its scene; and how its prompt is laid out.

    In ``refresh`` only the last answer is learnt: the image tokens are of its question.
    """

    turns: tuple[tuple[int, Exchange], ...]
    layout: str = "append"


@dataclass(slots=True)
class _Row:
    """One sequence of the language model; ``shown``: the turns whose image tokens are in it."""

    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)

    def image(self, turn: int) -> None:
        """The slots of a turn's image tokens."""
        self.shown.append(turn)
        self._quiet([IMAGE] * QUERIES)

    def read(self, ids: Sequence[int]) -> None:
        """What is read and not learnt."""
        self._quiet(ids)

    def answer(self, ids: Sequence[int], goal: Sequence[int], weights: Sequence[float]) -> None:
        """An answer: the token before it says its first one."""
        self.targets[-1], self.weights[-1] = goal[0], weights[0]
        self.ids += ids
        self.targets += goal[1:]
        self.weights += weights[1:]

    def _quiet(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.targets += [-100] * len(ids)
        self.weights += [0.0] * len(ids)


class Collator:
    """Builds batches with the run time's own tokenizers and rules."""

    def __init__(self, tokenizer: Tokenizer, bert: object, names: dict[str, int]) -> None:
        self._tokenizer = tokenizer
        self._bert = bert
        self._names = names
        self._properties = Properties(
            "training", qformer_text="question_then_history", context_length=CONTEXT
        )
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

    def batch(self, scenes: Sequence[Scene], talks: Sequence[Talk]) -> Batch:
        """Rows of the language model, and what its image tokens should know."""
        rows: list[_Row] = []
        texts: list[str] = []
        shown: list[tuple[int, Exchange]] = []
        for talk in talks:
            row, said = self._row(talk)
            rows.append(row)
            texts += [said[n] for n in row.shown]
            shown += [talk.turns[n] for n in row.shown]
        pictures, exchanges = [scene for scene, _ in shown], [turn for _, turn in shown]
        coded = self._bert(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")  # type: ignore[operator]
        cell, box, count, attend = self._lookups([scenes[p] for p in pictures], exchanges)
        holds, ratio = _pairs([scenes[p] for p in pictures], exchanges)
        return Batch(
            _pad([row.ids for row in rows], 2).long(),
            _pad([row.targets for row in rows], -100).long(),
            _pad([row.weights for row in rows], 0).float(),
            torch.tensor([len(row.ids) for row in rows]), torch.tensor(pictures),
            coded["input_ids"], coded["attention_mask"], attend, cell, box, count, holds, ratio,
            *self._grids(scenes),
        )  # fmt: skip

    def _row(self, talk: Talk) -> tuple[_Row, list[str]]:
        """What the language model reads of a dialogue that the context holds; Q-Former texts."""
        row, last, first = _Row(), len(talk.turns) - 1, self._start(talk)
        for n in range(first, last + 1):
            scene, turn = talk.turns[n]
            changed = n > first and scene != talk.turns[n - 1][0]
            if n == first or talk.layout == "append" or (talk.layout == "keep" and changed):
                row.image(last if talk.layout == "refresh" else n)
            if n == first or talk.layout != "refresh":
                row.read([START])
            row.read(self.encode(turn.question))
            answer = self.encode(turn.answer)
            if n < last and talk.layout == "refresh":
                row.read(answer)
            else:
                goal = [*answer, START]
                row.answer(answer, goal, [3.0 if t in self._heavy else 1.0 for t in goal])
        return row, self._texts([exchange for _, exchange in talk.turns])

    def _start(self, talk: Talk) -> int:
        """The first turn that is kept: the run time's rule, on lengths."""
        append = talk.layout == "append"
        more = int(talk.layout != "refresh") + QUERIES * append
        sizes = [  # of the whole turn, and of its answer, which the newest turn has not got yet
            (len(self.encode(turn.question)) + len(self.encode(turn.answer)) + more,
             len(self.encode(turn.answer)))
            for _, turn in talk.turns
        ]  # fmt: skip
        once = int(talk.layout == "refresh") + QUERIES * (not append)

        def length(kept: Sequence[tuple[int, int]]) -> int:
            return sum(whole for whole, _ in kept) - kept[-1][1] + once

        return trim_start(sizes, length, context_budget(self._properties, NEW_TOKENS))

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
