"""Stage A: the ViT learns to see, with dense heads on its patches that are thrown away afterwards.

Each patch says which class lies under it, in which colour, where that object's centre is and how
large it is. Source of the sizes and rates: the project's own prototype (see the model card).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import InstructBlipVisionConfig, InstructBlipVisionModel

from instructblip.images import CLIP_MEAN, CLIP_STD
from instructblip.scenes import (
    COLOURS,
    DIGITS,
    LETTERS,
    SHAPES,
    SIZE,
    UNKNOWN,
    Scene,
    Thing,
    atlas,
    compose,
)
from instructblip.training.augment import touch_icon, touch_scene
from instructblip.training.budget import Budget
from instructblip.training.foreign import foreign
from instructblip.training.log import Log

PATCH = 16
GRID = SIZE // PATCH
BACKGROUND = 0
FOREIGN = "foreign"  # the style of a picture from outside
FLAT = 0.06  # share of pictures that hold one plain shape, as other programs draw it
TOUCHED = 0.65  # share of the other scenes whose icons and whole are changed


def class_names() -> list[str]:
    """All names a patch may carry; 0 is the background."""
    glyphs = [f"letter {c}" for c in LETTERS] + [f"number {c}" for c in DIGITS]
    return ["background", UNKNOWN, *SHAPES, *glyphs, *sorted(atlas().classes)]


def vision_config() -> InstructBlipVisionConfig:
    """112/16, width 192, 6 layers, 3 heads."""
    return InstructBlipVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3,
        image_size=SIZE, patch_size=PATCH, layer_norm_eps=1e-6, qkv_bias=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PatchTargets:
    """[batch, 49] class and colour (-100: none), [batch, 49, 3] dx, dy in pictures, log size."""

    names: Tensor
    colours: Tensor
    boxes: Tensor
    foreign: Tensor  # [batch] 1.0 where the whole picture is from outside the world

    def to(self, device: torch.device) -> PatchTargets:
        """The same on a device."""
        return PatchTargets(*(getattr(self, f.name).to(device) for f in fields(self)))


def fresh_scene(
    rng: random.Random, photos: Path | None = None, foreign_share: float = 0.1
) -> Scene:
    """A training picture: mostly a composed scene, its icons changed; sometimes a foreign one."""
    if rng.random() < foreign_share:
        return Scene(foreign(rng, photos), (), FOREIGN)
    if rng.random() < FLAT:
        return compose(rng, flat=True)
    touch = touch_icon if rng.random() < TOUCHED else None
    scene = compose(rng, touch=touch)
    return touch_scene(rng, scene) if touch else scene


def strange_scene(rng: random.Random) -> Scene:
    """One unknown drawing, its colours and outlines changed: as foreign as a photograph."""
    return touch_scene(rng, compose(rng, count=1, touch=touch_icon, only="unknown"))


def patch_owner(scene: Scene) -> np.ndarray:
    """[49] index of the object under each patch's centre (the last drawn wins), or -1.

    One that lies between two rows or columns of centres has the row or column of its own.
    """
    owner = np.full((GRID, GRID), -1)
    at = (np.arange(GRID) + 0.5) / GRID
    for index, thing in enumerate(scene.objects):
        x0, y0, x1, y1 = thing.box
        columns, rows = (at >= x0) & (at <= x1), (at >= y0) & (at <= y1)
        for inside, middle in zip((columns, rows), thing.centre, strict=True):
            if not inside.any():
                inside[int(middle * GRID)] = True
        owner[rows[:, None] & columns[None]] = index
    return owner.reshape(-1)


def targets(scenes: Sequence[Scene], names: dict[str, int]) -> PatchTargets:
    """Dense targets of a batch."""
    shape = (len(scenes), GRID * GRID)
    kinds = np.zeros(shape, dtype=np.int64)
    colours = np.full(shape, -100, dtype=np.int64)
    boxes = np.zeros((*shape, 3), dtype=np.float32)
    hues = {c: i for i, c in enumerate(COLOURS)}
    centres = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2) + 0.5
    for b, scene in enumerate(scenes):
        owner = patch_owner(scene)
        for i, thing in enumerate(scene.objects):
            mine = owner == i
            kinds[b, mine] = names[thing.name]
            if thing.colour is not None:
                colours[b, mine] = hues[thing.colour]
            boxes[b, mine, :2] = np.array(thing.centre) - centres[mine] / GRID
            boxes[b, mine, 2] = log_size(thing)
    outside = torch.tensor([float(s.style == FOREIGN) for s in scenes])
    dense = [torch.from_numpy(array) for array in (kinds, colours, boxes)]
    return PatchTargets(dense[0], dense[1], dense[2], outside)


def log_size(thing: Thing) -> float:
    """log2 of the visible part's mean side over a third of the picture's: -1 to 1 or so."""
    return 0.5 * math.log2(thing.area * 9)


def pixels(scenes: Sequence[Scene]) -> Tensor:
    """[batch, 112, 112, 3] uint8."""
    return torch.from_numpy(np.stack([np.asarray(s.image, dtype=np.uint8) for s in scenes]))


def normal(raw: Tensor) -> Tensor:
    """[batch, 112, 112, 3] uint8 → [batch, 3, 112, 112], as the run time prepares a picture."""
    mean, deviation = (torch.tensor(v, device=raw.device) for v in (CLIP_MEAN, CLIP_STD))
    return ((raw.float() / 255.0 - mean) / deviation).permute(0, 3, 1, 2).contiguous()


class DenseHeads(nn.Module):
    """Training heads on the ViT's patches; thrown away afterwards."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.names = nn.Linear(width, classes)
        self.colours = nn.Linear(width, len(COLOURS))
        self.boxes = nn.Linear(width, 3)
        self.foreign = nn.Linear(width, 1)

    def loss(self, features: Tensor, truth: PatchTargets) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the heads' losses over features [batch, 50, width], and accuracies."""
        whole, states = features.split((1, GRID * GRID), 1)
        logits = self.names(states).float()
        weight = torch.where(truth.names == BACKGROUND, 0.1, 1.0)
        each = nn.functional.cross_entropy(
            logits.flatten(0, 1), truth.names.flatten(), reduction="none"
        )
        loss = (each * weight.flatten()).sum() / weight.sum()
        colour = self.colours(states).float().flatten(0, 1)
        loss = loss + 0.7 * nn.functional.cross_entropy(colour, truth.colours.flatten())
        there = truth.names != BACKGROUND
        loss = loss + 3 * (self.boxes(states).float() - truth.boxes)[there].abs().mean()
        outside = self.foreign(whole[:, 0]).float()[:, 0]
        loss = loss + nn.functional.binary_cross_entropy_with_logits(outside, truth.foreign)
        with torch.no_grad():
            known = float(((outside > 0) == (truth.foreign > 0)).float().mean())
            right = (logits.argmax(-1) == truth.names)[there].float().mean()
            lit = truth.colours.flatten() >= 0
            hue = (colour.argmax(-1) == truth.colours.flatten())[lit].float().mean()
        return loss, {"names": float(right), "colours": float(hue), "foreign": known}


class DenseVision(nn.Module):
    """The ViT with its training heads."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        config = vision_config()
        self.vision = InstructBlipVisionModel(config)
        # On a CPU plain attention trains 1.4 times as fast here as the fused one.
        self.vision.set_attn_implementation("eager")
        width = config.hidden_size
        nn.init.trunc_normal_(self.vision.embeddings.class_embedding, std=0.02)
        self.vision.embeddings.position_embedding.data.copy_(sincos(width))
        self.heads = DenseHeads(width, classes)

    def loss(self, images: Tensor, truth: PatchTargets) -> tuple[Tensor, dict[str, float]]:
        """The heads' loss on a batch of pictures."""
        return self.heads.loss(self.vision(images).last_hidden_state, truth)


def sincos(width: int) -> Tensor:
    """[1, 50, width] two-dimensional sine-cosine positions (as in MAE); zero for CLS."""
    rates = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    at = torch.arange(GRID)[:, None] * rates[None]
    line = torch.cat([at.sin(), at.cos()], -1)
    rows, columns = line[:, None].expand(-1, GRID, -1), line[None].expand(GRID, -1, -1)
    table = torch.cat([rows, columns], -1).reshape(-1, width)
    return torch.cat([torch.zeros(1, width), 0.3 * table])[None]


def optimisers(
    module: nn.Module, rate: float, parts: Sequence[str] = ()
) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, heads, norms and biases.

    ``parts``: parts of parameters' names that have a learning rate of their own (see
    :func:`set_rate`).
    """
    groups: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim == 2 and (".layers." in name or ".layer." in name)
        part = next((part for part in parts if part in name), "")
        groups.setdefault((matrix, part), []).append(parameter)
    matrices, rest = (
        [{"params": p, "part": part} for (m, part), p in groups.items() if m == matrix]
        for matrix in (True, False)
    )
    muon = torch.optim.Muon(
        matrices, lr=rate, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)]


def set_rate(
    chosen: Sequence[torch.optim.Optimizer], rate: float, shares: dict[str, float] | None = None
) -> None:
    """Set every group's learning rate; ``shares`` of it for the parts of :func:`optimisers`."""
    for optimiser in chosen:
        for group in optimiser.param_groups:
            group["lr"] = rate * (shares or {}).get(group["part"], 1.0)


def schedule(done: float, peak: float, warm: float = 0.01, hold: float = 0.45) -> float:
    """Warm up, hold, then fall linearly to 2 % of the peak; ``done`` runs from 0 to 1."""
    if done < warm:
        return peak * max(done / warm, 0.02)
    if done < hold:
        return peak
    return peak * max(0.02, (1 - done) / (1 - hold))


def train_vision(
    out: Path,
    budget: Budget,
    *,
    seed: int = 1,
    batch: int = 64,
    peak: float = 2e-3,
    photos: Path | None = None,
    log: Path | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Train on fresh scenes at every step; goes on from ``out`` if it exists.

    Returns the running means of loss and accuracies at the end; Ctrl-C ends the chunk early.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    names = {n: i for i, n in enumerate(class_names())}
    model = DenseVision(len(names)).to(device)
    if out.exists():
        model.load_state_dict(torch.load(out, "cpu", weights_only=True), strict=False)
        seed += int(out.stat().st_mtime)
    chosen = optimisers(model, peak)
    reports = Log(log or out.with_suffix(".jsonl"), "vision", every=50)
    rng, saved = random.Random(seed), time.monotonic()
    try:
        while (done := budget.spend()) is not None:
            set_rate(chosen, schedule(done, peak))
            scenes = [fresh_scene(rng, photos) for _ in range(batch)]
            images, truth = normal(pixels(scenes).to(device)), targets(scenes, names)
            with torch.autocast(images.device.type, torch.bfloat16):
                loss, scores = model.loss(images, truth.to(images.device))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in chosen:
                optimiser.step()
                optimiser.zero_grad()
            reports.step(budget.seconds, batch, {"loss": float(loss.detach()), **scores})
            if time.monotonic() - saved > 90:
                save(model, out)
                saved = time.monotonic()
    except KeyboardInterrupt:
        print("Stopped; what was learnt so far is saved.", flush=True)
    save(model, out)
    reports.end()
    return reports.means


def save(model: nn.Module, out: Path) -> None:
    """Write weights under a temporary name, then rename."""
    fresh = out.with_suffix(".tmp")
    torch.save(model.state_dict(), fresh)
    fresh.replace(out)
