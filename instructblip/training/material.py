"""Fresh scenes with dialogues, as batches without end; look-up questions come often at first."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from instructblip.scenes import UNKNOWN, Scene
from instructblip.training.batches import Batch, Collator, Talk
from instructblip.training.dialogues import Dialogues, Exchange
from instructblip.training.vision import PatchTargets, fresh_scene, pixels, strange_scene, targets

OUTSIDE_SHARE = 0.08
STRANGE_SHARE = 0.1  # of scenes are one unknown drawing, changed, against naming what is new
CHANGE_SHARE = 0.12
TRIES = 12  # scenes drawn for one type of question
LOOK_UPS = {"exists": 3, "where": 3, "relation": 3, "compare": 6}  # the slowest to learn
LONG_SHARE = 0.12  # long dialogues, of the scenes of a step: half about one scene, half about many
LONGEST = {"append": 30, "refresh": 40, "keep": 40}  # turns; the context holds some 20 in append
LAYOUTS = {"append": 0.5, "refresh": 0.3, "keep": 0.2}
Turns = list[tuple[int, Exchange]]  # each exchange with its scene's index


@dataclass(frozen=True, slots=True)
class Sample:
    """One step's pictures [P, 112, 112, 3] uint8, what their patches show, and the dialogues."""

    images: Tensor
    truth: PatchTargets
    batch: Batch
    talks: int

    def to(self, device: torch.device) -> Sample:
        """The same on a device."""
        return Sample(
            self.images.to(device), self.truth.to(device), self.batch.to(device), self.talks
        )


class Material(IterableDataset[Sample]):
    """``pictures`` scenes a step, each with a few dialogues of up to three turns, and some long
    dialogues; every worker draws its own."""

    def __init__(
        self, collator: Collator, names: dict[str, int], *, seed: int, pictures: int = 40,
        talks_each: int = 2, photos: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._collator, self._names, self._seed = collator, names, seed
        self._pictures, self._each, self._photos = pictures, talks_each, photos
        # Shared with worker processes: the share of scenes whose dialogues begin with a look-up.
        self.look_ups = torch.zeros(1).share_memory_()

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        rng = random.Random(self._seed if worker is None else f"{self._seed}-{worker.id}")
        talks = Dialogues(rng, language=None)
        while True:
            scenes, drawn = self._draw(rng, talks)
            batch = self._collator.batch(scenes, drawn)
            yield Sample(pixels(scenes), targets(scenes, self._names), batch, len(drawn))

    def _draw(self, rng: random.Random, talks: Dialogues) -> tuple[list[Scene], list[Talk]]:
        scenes: list[Scene] = []
        drawn: list[Turns] = []
        while len(scenes) < self._pictures or not drawn:
            kind = None
            if rng.random() < float(self.look_ups):
                kind = rng.choices(list(LOOK_UPS), list(LOOK_UPS.values()))[0]
            scene, made = self._scene(rng, talks, kind)
            drawn += [[(len(scenes), exchange) for exchange in talk] for talk in made if talk]
            scenes.append(scene)
        long = self._long(rng, talks, scenes, drawn)
        short = [Talk(tuple(t), _layout(rng)) for t in _change_pictures(rng, drawn)]
        return scenes, short + long

    def _long(
        self, rng: random.Random, talks: Dialogues, scenes: list[Scene], short: list[Turns]
    ) -> list[Talk]:
        """Dialogues as long as the context, or as people are patient."""
        made = []
        for _ in range(round(LONG_SHARE * len(scenes))):
            layout = _layout(rng)
            turns = rng.randint(4, LONGEST[layout])
            said: Turns = []
            if rng.random() < 0.5:
                at = rng.randrange(len(scenes))
                said = [(at, turn) for turn in _about(talks, scenes[at], turns)]
            while len(said) < turns:  # also where one scene has not enough to talk about
                said += rng.choice(short)
            made.append(Talk(tuple(said[-turns:]), layout))
        return made

    def _scene(
        self, rng: random.Random, talks: Dialogues, kind: str | None
    ) -> tuple[Scene, list[list[Exchange]]]:
        """A scene that ``kind`` can be asked about (not every one has two clear sizes)."""
        for _ in range(TRIES):
            if kind is None and rng.random() < STRANGE_SHARE:
                scene = strange_scene(rng)
            else:
                scene = fresh_scene(rng, self._photos, 0 if kind else OUTSIDE_SHARE)
            made = [self._talk(rng, talks, scene, kind) for _ in range(self._each)]
            if kind is None or (made[0] and made[0][0].kind == kind):
                break
        return scene, made

    def _talk(
        self, rng: random.Random, talks: Dialogues, scene: Scene, kind: str | None
    ) -> list[Exchange]:
        return _about(talks, scene, rng.choices((1, 2, 3), (0.5, 0.3, 0.2))[0], kind)


class Packed(IterableDataset[Tensor]):
    """Samples as one block of bytes each: a worker process hands every tensor over by itself, which
    can take longer than the step."""

    def __init__(self, material: Material) -> None:
        super().__init__()
        self._material = material

    def __iter__(self) -> Iterator[Tensor]:
        for sample in self._material:
            arrays = [*_arrays(sample.truth), *_arrays(sample.batch)]
            packed = pickle.dumps((sample.images.numpy(), arrays, sample.talks), protocol=5)
            yield torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def unpacked(block: Tensor) -> Sample:
    """The sample in a block of :class:`Packed`."""
    images, arrays, talks = pickle.loads(block.numpy().data)
    tensors = [torch.from_numpy(array) for array in arrays]
    parts = len(fields(PatchTargets))
    truth, batch = PatchTargets(*tensors[:parts]), Batch(*tensors[parts:])
    return Sample(torch.from_numpy(images), truth, batch, talks)


def _arrays(parts: PatchTargets | Batch) -> list[Any]:
    return [getattr(parts, field.name).numpy() for field in fields(parts)]


def _about(talks: Dialogues, scene: Scene, turns: int, kind: str | None = None) -> list[Exchange]:
    # A picture of nothing but unknown things is as foreign as a photograph.
    if all(thing.name == UNKNOWN for thing in scene.objects):
        return talks.outside(turns)
    return talks.dialogue(scene, turns, kind)


def _layout(rng: random.Random) -> str:
    return rng.choices(list(LAYOUTS), list(LAYOUTS.values()))[0]


def _change_pictures(rng: random.Random, talks: list[Turns]) -> list[Turns]:
    """Put the last turns of another dialogue before some: a new picture in mid-chat."""
    for n in range(1, len(talks)):
        if rng.random() < CHANGE_SHARE:
            before = talks[rng.randrange(n)][-2:]
            talks[n] = [*before, *talks[n]][-4:]
    return talks
