"""``python -m instructblip bench``: what the engine's caches, batches and kernels gain, measured.

A and B run in turn in one process; on a CPU in one thread by CPU time, on a device by synchronised
wall time. Medians of at least five. B is transformers: its own ``generate`` or ``forward``, its own
cache, everything from scratch where that is what a chat without our caches does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructblip.errors import BadParameter, InstructBlipError

if TYPE_CHECKING:
    from instructblip.model import InstructBlip

PARTS = ("turns", "batch", "decode", "prefill", "start", "soak")


@dataclass(slots=True)
class Table:
    """One table of figures, printed and kept as JSON."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    note: str = ""

    def text(self) -> str:
        """Markdown."""
        lines = [f"| {' | '.join(self.columns)} |", "| --- " * len(self.columns) + "|"]
        lines += [f"| {' | '.join(_shown(cell) for cell in row)} |" for row in self.rows]
        return "\n".join([f"\n**{self.name}** {self.note}\n", *lines])


def _shown(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


class Clock:
    """CPU seconds of this process on a CPU, synchronised wall seconds on a device."""

    def __init__(self, model: InstructBlip) -> None:
        self._device = model.device

    def time(self, work: Callable[[], object]) -> float:
        """Seconds that ``work`` takes."""
        began = self._now()
        work()
        return self._now() - began

    def _now(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        from instructblip.devices import synchronise

        synchronise(self._device)
        return time.perf_counter()

    def medians(self, repeats: int, *works: Callable[[], object]) -> list[float]:
        """Each of ``works`` in turn, ``repeats`` times and once before. → their medians."""
        laps: list[list[float]] = [[] for _ in works]
        for lap in range(repeats + 1):
            for n, work in enumerate(works):
                seconds = self.time(work)
                if lap:  # the first warms up
                    laps[n].append(seconds)
        return [statistics.median(own) for own in laps]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench``."""
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--model", default="embedded", help="'embedded' or a folder of weights")
    parser.add_argument("--shape", help="vicuna-7b or vicuna-13b with random weights, not --model")
    parser.add_argument("--layers", type=int, help="of the language model, with --shape")
    parser.add_argument("--vision-layers", type=int, help="of the ViT, with --shape")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--turns", type=int, nargs="*", default=[1, 2, 5, 10])
    parser.add_argument("--layouts", nargs="*", default=["refresh", "keep", "append"])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--context", type=int, nargs=2, default=[200, 520], metavar=("LOW", "HIGH"))
    parser.add_argument("--seconds", type=float, default=20, help="of the soak")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the tables into this PNG file")


def run(args: argparse.Namespace) -> int:
    """Measure the parts that were asked for and print a table for each."""
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown or args.repeats < 1:
        raise BadParameter(
            f"bench knows {', '.join(PARTS)} and --repeats from 1, not {', '.join(unknown) or args.repeats}.",
            name="parts",
        )
    import torch

    from instructblip import measures

    if args.device == "cpu":
        torch.set_num_threads(1)
    tables = []
    # The start is measured in processes of its own, before this one holds a model.
    if "start" in args.parts:
        tables.append(measures.start(args))
        print(tables[-1].text(), flush=True)
    if rest := [part for part in args.parts if part != "start"]:
        model = build(args)
        measures.spare_output_copy(model)
        for part in rest:
            made: Table = getattr(measures, part)(model, Clock(model), args)
            tables.append(made)
            print(made.text(), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(t) for t in tables], indent=2), encoding="utf-8")
    if args.plot:
        plot(tables, args.plot)
    return 0


def build(args: argparse.Namespace, int4: bool = False) -> InstructBlip:
    """The model to measure; one of random weights in 4 bits if wished."""
    if args.shape:
        from instructblip.devices import choose_devices, choose_dtype
        from instructblip.shapes import SHAPES, random_model

        if args.shape not in SHAPES:
            raise BadParameter(f"--shape is one of {', '.join(SHAPES)}.", name="shape")
        devices = choose_devices(args.device)
        dtype = choose_dtype(args.dtype, devices[0], 7_000_000_000)
        return random_model(
            args.shape, layers=args.layers, vision_layers=args.vision_layers, dtype=dtype,
            device=",".join(map(str, devices)), int4=int4,
        )  # fmt: skip
    from instructblip.checkpoints import load

    return load(args.model, device=args.device, dtype=args.dtype)


def plot(tables: Sequence[Table], path: Path) -> None:
    """A bar chart of each table's last column of numbers.

    Raises:
        InstructBlipError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InstructBlipError(
            "--plot needs matplotlib: install it with `pip install matplotlib`."
        ) from error
    figure = Figure(figsize=(9, 3 * len(tables)), layout="constrained")
    for n, table in enumerate(tables):
        axes = figure.add_subplot(len(tables), 1, n + 1)
        labels = [" ".join(_shown(c) for c in row[:2]) for row in table.rows]
        axes.barh(labels, [float(row[-1]) for row in table.rows])
        axes.set(title=table.name, xlabel=table.columns[-1])
        axes.invert_yaxis()
    figure.savefig(path, dpi=110)
