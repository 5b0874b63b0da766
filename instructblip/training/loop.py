"""The training loop: chunks that can be stopped anywhere and go on from what they saved.

A chunk goes on from its own checkpoint, or from a folder of shipped fp16 weights alone; the
schedule warms up again, and heads that only training has learn first while the model waits.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertTokenizer, InstructBlipForConditionalGeneration

from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.training.batches import Collator
from instructblip.training.budget import Budget
from instructblip.training.joint import JointModel
from instructblip.training.language import build, extend_words, properties, write_tokenizers
from instructblip.training.log import Log
from instructblip.training.material import Material, Packed, Sample, unpacked
from instructblip.training.vision import (
    class_names,
    normal,
    optimisers,
    save,
    schedule,
    set_rate,
)

PARTS = ("vision_model", "probes.")
SHARES = {"vision_model": 0.5}  # of the learning rate
SETTLING = {"vision_model": 0.0, "": 0.0}
SETTLE = 90.0  # seconds in which only the probes learn, when they are new and the model is not,
SETTLE_SHARE = 0.03  # and the most of a chunk
SAVE_EVERY = 90.0  # seconds
_FILES = (
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "qformer_tokenizer",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One chunk. ``look_ups``: share of look-up scenes in its first minutes, and after them.

    ``steps``: as many in place of the minutes; what is said in minutes keeps its share of them.
    """

    minutes: float
    steps: int | None = None
    lookup_minutes: float = 0.0
    look_ups: tuple[float, float] = (0.7, 0.3)
    peak: float = 1.2e-3
    warm: float = 0.01
    hold: float = 0.5
    seed: int = 2
    pictures: int = 40  # a step
    photos: Path | None = None
    device: str = "cpu"
    workers: int = 0  # processes that draw scenes, for a GPU


class Workshop:
    """A folder of a training: tokenizers, ``vision.pt``, ``joint.pt``, ``log.jsonl``, ``model/``."""

    def __init__(self, folder: Path, start: Path | None = None) -> None:
        """``start``: a shipped model to go on from when the folder holds none yet."""
        self.folder, self.start = folder, start
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "tokenizer.model").exists():
            if start is None:
                write_tokenizers(folder)
            else:
                _copy(start, folder)
        extend_words(folder)
        self.names = {n: i for i, n in enumerate(class_names())}
        self.bert = BertTokenizer.from_pretrained(folder / "qformer_tokenizer")

    @property
    def vision(self) -> Path:
        """The ViT with its heads."""
        return self.folder / "vision.pt"

    @property
    def joint(self) -> Path:
        """The whole model with its probes."""
        return self.folder / "joint.pt"

    @property
    def log(self) -> Path:
        """Reports of all chunks."""
        return self.folder / "log.jsonl"

    def model(self) -> tuple[JointModel, bool]:
        """The model as far as it is trained, and whether its probes are too."""
        joint = JointModel(self.folder, self.names, self.bert)
        if self.joint.exists():
            state = torch.load(self.joint, "cpu", weights_only=True)
            joint.load_state_dict(_grown(state, joint), strict=False)
            return joint, True
        if self.start is not None:
            shipped = InstructBlipForConditionalGeneration.from_pretrained(
                self.start, dtype=torch.float32
            )
            joint.model.load_state_dict(_grown(shipped.state_dict(), joint.model))
            return joint, False
        if self.vision.exists():
            state = torch.load(self.vision, "cpu", weights_only=True)
            kept = {
                k.removeprefix("vision."): v for k, v in state.items() if k.startswith("vision.")
            }
            joint.model.vision_model.load_state_dict(kept)
        return joint, True

    def collator(self) -> Collator:
        """Builds batches with this folder's tokenizers."""
        return Collator(Tokenizer(self.folder / "tokenizer.model"), self.bert, self.names)

    def export(self, target: Path) -> None:
        """Write the stock model as fp16 safetensors, with tokenizers and properties."""
        target.mkdir(parents=True, exist_ok=True)
        if target != self.folder:
            _copy(self.folder, target)
        state = torch.load(self.joint, "cpu", weights_only=True)
        model = build(self.folder)
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        )
        model.half().save_pretrained(target)
        text = json.dumps(properties(), indent=2, ensure_ascii=False)
        (target / "properties.json").write_text(text, encoding="utf-8")


def train_joint(shop: Workshop, plan: Plan) -> Log:
    """Train one chunk. Ctrl-C ends it early; what was learnt is saved either way."""
    torch.set_num_threads(1)
    joint, settled = shop.model()
    joint.to(plan.device)
    if plan.device != "cpu":
        joint.attend("sdpa")
    # The number of steps before is not kept: the clock makes each chunk's scenes new ones.
    seed = plan.seed + (int(shop.joint.stat().st_mtime) if shop.joint.exists() else 0)
    torch.manual_seed(seed)
    material = Material(
        shop.collator(), shop.names, seed=seed, pictures=plan.pictures, photos=plan.photos
    )
    log = Log(shop.log, "joint")
    try:
        _loop(joint, material, plan, shop.joint, log, settled)
    except KeyboardInterrupt:
        print("Stopped; what was learnt so far is saved.", flush=True)
    save(joint, shop.joint)
    log.end()
    return log


def _loop(
    joint: JointModel, material: Material, plan: Plan, out: Path, log: Log, settled: bool
) -> None:
    chosen = optimisers(joint, plan.peak, PARTS)
    settle = 0.0 if settled else min(SETTLE / 60 / plan.minutes, SETTLE_SHARE)
    budget, saved = Budget(plan.minutes, plan.steps), time.monotonic()
    before: tuple[int, dict[str, Tensor]] | None = None
    for sample in _samples(material, plan.workers):
        if (done := budget.spend()) is None:
            return
        material.look_ups.fill_(plan.look_ups[done * plan.minutes >= plan.lookup_minutes])
        rate = schedule(done, plan.peak, plan.warm, plan.hold)
        set_rate(chosen, rate, SETTLING if done < settle else SHARES)
        held = sample.to(joint.device)
        with torch.autocast(joint.device.type, torch.bfloat16):
            loss, parts = joint.loss(normal(held.images), held.truth, held.batch)
        loss.backward()
        nn.utils.clip_grad_norm_(joint.parameters(), 1.0)
        for optimiser in chosen:
            optimiser.step()
            optimiser.zero_grad()
        if before is not None:  # reading this step's losses would wait for the device
            log.step(budget.seconds, before[0], _read(before[1]))
        before = sample.talks, parts
        if time.monotonic() - saved > SAVE_EVERY:
            save(joint, out)
            saved = time.monotonic()


def _samples(material: Material, workers: int) -> Iterable[Sample]:
    if not workers:
        return material
    loader = DataLoader(Packed(material), batch_size=None, num_workers=workers, prefetch_factor=4)
    return map(unpacked, loader)


def _read(parts: dict[str, Tensor]) -> dict[str, float]:
    return dict(zip(parts, torch.stack([p.float() for p in parts.values()]).tolist(), strict=True))


def _copy(source: Path, target: Path) -> None:
    """The tokenizers' files."""
    for name in _FILES:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source / name, target / name)


def _grown(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Weights of a smaller vocabulary, with fresh rows for the words that came later."""
    for name, fresh in module.state_dict().items():
        old = state.get(name)
        if old is not None and old.ndim == 2 and len(old) < len(fresh):
            state[name] = torch.cat([old, fresh[len(old) :]])
    return state
