"""What a chip can do at most: the limit on paper that measured speeds are a share of.

A step reads all weights and the keys and values of its context once, and multiplies: it takes at
least bytes / bandwidth, and at least operations / rate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AIM = 0.75  # share of the limit that the engine should reach


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip: memory bandwidth in bytes/s, and rate of dense half-precision products in FLOP/s."""

    name: str
    pattern: str
    bandwidth: float
    rate: float


# Bandwidth and rate are the makers' (data sheets of H100 SXM, H200 SXM, A100 80GB SXM and Atlas 300I
# Pro). For the 910B no data sheet is published: 1.6 TB/s of HBM2e is the figure in general use, and
# the rate is what 300 tokens of prefill in 11 ms and a ViT of 1.5 ms come to.
CHIPS = (
    Chip("Ascend 910B", r"910B([123]C?)?\b", 1.6e12, 360e12),
    Chip("Ascend 310P", r"310P", 204.8e9, 70e12),
    Chip("NVIDIA H200", r"H200", 4.8e12, 989e12),
    Chip("NVIDIA H100", r"H100(?! (PCIe|NVL))", 3.35e12, 989e12),
    Chip("NVIDIA A100 80GB", r"A100.*80GB", 2.039e12, 312e12),
)


def chip_named(name: str) -> Chip | None:
    """The chip whose name a driver gave, if its limits are known."""
    return next((chip for chip in CHIPS if re.search(chip.pattern, name)), None)


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes that are read and floating point operations that are done."""

    nbytes: float
    operations: float = 0.0

    def seconds(self, chip: Chip) -> float:
        """The least time that it takes."""
        return max(self.nbytes / chip.bandwidth, self.operations / chip.rate)


def decode_limit(chip: Chip, weights: float, cache: float, rows: int) -> float:
    """Tokens a second at most: ``weights`` bytes a step, ``cache`` bytes of keys and values a row."""
    return rows / Work(weights + rows * cache).seconds(chip)
