"""Stage B: Q-Former and language model learn to look things up and to answer, on a frozen ViT.

Beside the language loss, the Q-Former's last cross-attention is told where to look (the recipe
and its weights come from the project's own prototype; see the model card). The helpers live in
:class:`Probes` and are thrown away: what ships is transformers' stock model.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertTokenizer, InstructBlipForConditionalGeneration

from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.scenes import COLOURS, UNKNOWN, Scene
from instructblip.training.batches import CELLS, IMAGE, Batch, Collator
from instructblip.training.dialogues import Dialogues, Exchange
from instructblip.training.language import QUERIES, WIDTH, build, extend_words, write_tokenizers
from instructblip.training.vision import (
    class_names,
    fresh_scene,
    optimisers,
    pixels,
    save,
    schedule,
    set_rate,
)

GROUP_ONE, GROUP_TWO = slice(16, 20), slice(20, 24)
HEADS = 2  # of the last cross-attention, told where to look
OUTSIDE_SHARE = 0.08
CHANGE_SHARE = 0.12
BUCKETS = 4
Talk = list[tuple[int, Exchange]]  # each exchange with its scene's index


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
        self.holds = nn.Linear(WIDTH, 2)


@dataclass(slots=True)
class Captured:
    """Queries [N, 24, 192] and keys [N, 50, 192] of the last cross-attention, by hooks."""

    query: Tensor | None = None
    key: Tensor | None = None


class JointModel(nn.Module):
    """The model in training, its ViT frozen."""

    def __init__(self, folder: Path, names: dict[str, int], bert: BertTokenizer) -> None:
        super().__init__()
        self.model = build(folder)
        self.model.vision_model.requires_grad_(False)
        # On a CPU and at these lengths plain attention trains 1.6 times as fast as the fused one.
        self.model.qformer.set_attn_implementation("eager")
        self.model.language_model.set_attn_implementation("eager")
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

    @torch.no_grad()
    def features(self, scenes: Sequence[Scene]) -> Tensor:
        """[P, 50, 192] of the frozen ViT."""
        out: Tensor = self.model.vision_model(pixels(scenes)).last_hidden_state
        return out

    def loss(self, features: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum, and its parts."""
        seen = features[batch.pictures]
        mask = torch.cat([torch.ones(len(seen), QUERIES, dtype=torch.long), batch.word_mask], 1)
        states = self.model.qformer(
            input_ids=batch.words, attention_mask=mask,
            query_embeds=self.model.query_tokens.expand(len(seen), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long),
        ).last_hidden_state[:, :QUERIES]  # fmt: skip
        parts = {
            "language": self._language(states, batch),
            "attention": self._attention(batch),
            "ground": self._grounding(batch),
            "look": self._lookup(states.float(), batch),
            "grid": self._grid(states.float(), batch),
        }
        weights = {"language": 1.0, "attention": 1.0, "ground": 1.0, "look": 0.5, "grid": 0.25}
        total = torch.stack([weights[k] * v for k, v in parts.items()]).sum()
        return total, {k: float(v.detach()) for k, v in parts.items()}

    def _language(self, states: Tensor, batch: Batch) -> Tensor:
        tokens = self.model.language_projection(states)
        llm = self.model.language_model
        slots = batch.ids == IMAGE
        embeds = llm.get_input_embeddings()(batch.ids.clamp(min=0)).to(tokens.dtype)
        embeds = embeds.masked_scatter(slots[..., None], tokens.flatten(0, 1))
        wanted = batch.targets >= 0
        lengths = (wanted * torch.arange(1, wanted.shape[1] + 1)).amax(1)
        losses, shares = [], []
        # Rows of like length run together: padding would double the work.
        for rows in lengths.argsort().chunk(BUCKETS):
            longest = int(lengths[rows].max())
            hidden = llm.model(inputs_embeds=embeds[rows, :longest], use_cache=False)
            here = wanted[rows, :longest]
            logits = llm.lm_head(hidden.last_hidden_state[here]).float()
            goal = batch.targets[rows, :longest][here]
            share = batch.weights[rows, :longest][here]
            losses.append((cross_entropy(logits, goal, reduction="none") * share).sum())
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
        first = torch.zeros(len(batch.patches), dtype=torch.long)
        first[batch.pictures] = torch.arange(len(batch.pictures))
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

    def _lookup(self, states: Tensor, batch: Batch) -> Tensor:
        places = states[:, [GROUP_ONE.start, GROUP_TWO.start]]  # [N, 2, 192]
        loss = cross_entropy(self.probes.cell(places).float().flatten(0, 1), batch.cell.flatten())
        placed = (batch.cell >= 0) & (batch.cell < 9)
        loss = loss + 4 * (self.probes.box(places).float() - batch.box)[placed].abs().mean()
        number, truth = states[:, GROUP_ONE.start + 1], states[:, GROUP_ONE.start + 2]
        loss = loss + 0.5 * cross_entropy(self.probes.count(number).float(), batch.count)
        asked = batch.holds >= 0
        if asked.any():
            loss = loss + cross_entropy(self.probes.holds(truth[asked]).float(), batch.holds[asked])
        return loss

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


def _heads(x: Tensor | None) -> Tensor:
    """[N, L, 192] → the first heads, [N, HEADS, L, 48]."""
    assert x is not None
    return x.unflatten(-1, (4, WIDTH // 4)).transpose(1, 2)[:, :HEADS]


class Material:
    """Fresh scenes with dialogues; look-up types come first and often in the first stretch."""

    def __init__(
        self, seed: int, pictures: int, talks_each: int, photos: Path | None = None
    ) -> None:
        self._rng = random.Random(seed)
        self._talks = Dialogues(self._rng, language=None)
        self._pictures, self._each, self._photos = pictures, talks_each, photos

    def draw(self, lookup: float) -> tuple[list[Scene], list[Talk]]:
        """``lookup``: share of dialogues that begin with exists, where or relation."""
        scenes: list[Scene] = []
        talks: list[Talk] = []
        while len(scenes) < self._pictures:
            scene = fresh_scene(self._rng, self._photos, OUTSIDE_SHARE)
            # A picture of nothing but unknown things is as foreign as a photograph.
            outside = all(thing.name == UNKNOWN for thing in scene.objects)
            scenes.append(scene)
            for _ in range(self._each):
                talk = self._talk(scene, outside, lookup)
                if talk:
                    talks.append([(len(scenes) - 1, exchange) for exchange in talk])
        return scenes, self._change_pictures(talks)

    def _talk(self, scene: Scene, outside: bool, lookup: float) -> list[Exchange]:
        turns = self._rng.choices((1, 2, 3), (0.5, 0.3, 0.2))[0]
        if outside:
            return self._talks.outside(turns)
        kinds = ("exists", "where", "relation")
        kind = self._rng.choices(kinds, (4, 3, 4))[0] if self._rng.random() < lookup else None
        return self._talks.dialogue(scene, turns, kind)

    def _change_pictures(self, talks: list[Talk]) -> list[Talk]:
        """Put the last turns of another dialogue before some: a new picture in mid-chat."""
        for n in range(1, len(talks)):
            if self._rng.random() < CHANGE_SHARE:
                before = talks[self._rng.randrange(n)][-2:]
                talks[n] = [*before, *talks[n]][-4:]
        return talks


def train_joint(
    folder: Path, vision: Path, out: Path, minutes: float, *, lookup_minutes: float,
    seed: int = 2, peak: float = 2e-3, warm: float = 0.01, hold: float = 0.5,
    photos: Path | None = None,
) -> None:  # fmt: skip
    """Train for a time; goes on from ``out`` if it exists (the schedule warms up again)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    if not (folder / "tokenizer.model").exists():
        write_tokenizers(folder)
    extend_words(folder)
    bert = BertTokenizer.from_pretrained(folder / "qformer_tokenizer")
    names = {n: i for i, n in enumerate(class_names())}
    joint = JointModel(folder, names, bert)
    if out.exists():
        joint.load_state_dict(_grown(torch.load(out, weights_only=True), joint), strict=False)
        seed += int(out.stat().st_mtime)
    elif (folder / "model.safetensors").exists():
        # What ships is enough to go on from; the probes learn again within minutes.
        shipped = InstructBlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        joint.model.load_state_dict(_grown(shipped.state_dict(), joint.model))
        seed += int((folder / "model.safetensors").stat().st_mtime)
    if vision.exists():
        state = torch.load(vision, weights_only=True)
        joint.model.vision_model.load_state_dict(
            {k.removeprefix("vision."): v for k, v in state.items() if k.startswith("vision.")}
        )
    collator = Collator(Tokenizer(folder / "tokenizer.model"), {}, bert, names)
    _loop(
        joint,
        collator,
        Material(seed, 40, 2, photos),
        out,
        (minutes, lookup_minutes, peak, warm, hold),
    )


def _grown(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Weights of a smaller vocabulary, with fresh rows for the words that came later."""
    for name, fresh in module.state_dict().items():
        old = state.get(name)
        if old is not None and old.ndim == 2 and len(old) < len(fresh):
            state[name] = torch.cat([old, fresh[len(old) :]])
    return state


def _loop(
    joint: JointModel, collator: Collator, material: Material, out: Path,
    plan: tuple[float, float, float, float, float],
) -> None:  # fmt: skip
    minutes, lookup_minutes, peak, warm, hold = plan
    chosen = optimisers(joint, peak)
    began = saved = time.monotonic()
    step = samples = 0
    mean: dict[str, float] = {}
    while (spent := time.monotonic() - began) < minutes * 60:
        set_rate(chosen, schedule(spent / (minutes * 60), peak, warm, hold))
        scenes, talks = material.draw(0.7 if spent < lookup_minutes * 60 else 0.15)
        batch = collator.batch(scenes, talks)
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = joint.loss(joint.features(scenes), batch)
        loss.backward()
        nn.utils.clip_grad_norm_(joint.parameters(), 1.0)
        for optimiser in chosen:
            optimiser.step()
            optimiser.zero_grad()
        step, samples = step + 1, samples + len(talks)
        for key, value in parts.items():
            mean[key] = 0.97 * mean.get(key, value) + 0.03 * value
        if step % 25 == 0:
            shown = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
            print(f"{spent:6.0f} s  {samples:7d} dialogues  {shown}", flush=True)
        if time.monotonic() - saved > 90:
            save(joint, out)
            saved = time.monotonic()
    save(joint, out)


def export(folder: Path, weights: Path) -> InstructBlipForConditionalGeneration:
    """Write the stock model of a training checkpoint into ``folder`` as fp16 safetensors."""
    import json

    from instructblip.training.language import properties

    state = torch.load(weights, weights_only=True)
    model = build(folder)
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    )
    model.half().save_pretrained(folder)
    (folder / "properties.json").write_text(
        json.dumps(properties(), indent=2, ensure_ascii=False), encoding="utf-8"
    )
    return model


if __name__ == "__main__":
    import sys

    _folder, _vision, _out, _minutes, _lookup, _peak = sys.argv[1:7]
    train_joint(
        Path(_folder), Path(_vision), Path(_out), float(_minutes),
        lookup_minutes=float(_lookup), peak=float(_peak),
        photos=Path(sys.argv[7]) if len(sys.argv) > 7 else None,
    )  # fmt: skip
