"""How long a chunk of training lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class Budget:
    """Minutes from now on; or, where what comes out must not hang on a machine's speed, steps."""

    minutes: float = 0.0
    steps: int | None = None
    taken: int = 0  # steps that were begun
    began: float = field(default_factory=monotonic)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return monotonic() - self.began

    def spend(self) -> float | None:
        """Begin a step: the share of the budget spent before it, 0 to 1; None: nothing is left."""
        done = self.seconds / (self.minutes * 60) if self.steps is None else self.taken / self.steps
        self.taken += 1
        return done if done < 1 else None
