"""Progress of a training: one line of JSON a report, kept over stops, and a plot of it."""

from __future__ import annotations

import json
from pathlib import Path

from instructblip.errors import InstructBlipError

_SMOOTH = 0.97


class Log:
    """Running means of a chunk's figures; every ``every``-th step is printed and written."""

    def __init__(self, path: Path, stage: str, every: int = 25) -> None:
        self._path, self._stage, self._every = path, stage, every
        self._before = max((r["samples"] for r in read(path) if r["stage"] == stage), default=0)
        self._step = self._samples = 0
        self._seconds = 0.0
        self.means: dict[str, float] = {}

    def step(self, seconds: float, samples: int, figures: dict[str, float]) -> None:
        """Take in one step that trained on ``samples``, ``seconds`` after the chunk's start."""
        self._step += 1
        self._seconds = seconds
        self._samples += samples
        for key, value in figures.items():
            old = self.means.get(key, value)
            self.means[key] = _SMOOTH * old + (1 - _SMOOTH) * value
        if self._step % self._every == 0:
            self._write()

    def end(self) -> None:
        """Report the steps since the last report."""
        if self._step % self._every:
            self._write()

    def _write(self) -> None:
        shown = " ".join(f"{k} {v:.3f}" for k, v in self.means.items())
        print(
            f"{self._stage} {self._seconds:5.0f} s {self._samples:8d} samples  {shown}", flush=True
        )
        line = {
            "stage": self._stage, "seconds": round(self._seconds, 1),
            "samples": self._before + self._samples,
            **{k: round(v, 5) for k, v in self.means.items()},
        }  # fmt: skip
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, float]]:
    """All reports; a last line cut short by a stop is left out."""
    if not path.exists():
        return []
    reports = []
    for line in path.read_text("utf-8").splitlines():
        try:
            reports.append(json.loads(line))
        except ValueError:
            continue
    return reports


def plot(log: Path, picture: Path) -> None:
    """Losses and accuracies over samples, one panel for each stage.

    Raises:
        InstructBlipError: matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InstructBlipError(
            "The plot needs matplotlib: install it with `pip install matplotlib`. "
            f"The figures are in {log}."
        ) from error
    reports = read(log)
    stages = list(dict.fromkeys(r["stage"] for r in reports))
    figure = Figure(figsize=(9, 4 * max(len(stages), 1)), layout="constrained")
    for n, stage in enumerate(stages):
        rows = [r for r in reports if r["stage"] == stage]
        axes = figure.add_subplot(len(stages), 1, n + 1)
        axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
        for key in [k for k in rows[-1] if k not in ("stage", "seconds", "samples")]:
            points = [(r["samples"], r[key]) for r in rows if key in r]
            axes.plot(*zip(*points, strict=True), label=key, linewidth=1)
        axes.set(title=stage, xlabel="samples", yscale="log")
        axes.grid(True, alpha=0.3)
        axes.legend(ncols=4, fontsize=8)
    figure.savefig(picture, dpi=110)
