"""Example pictures with questions, from ``assets/examples/``."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "assets" / "examples"


@dataclass(frozen=True)
class Example:
    """A picture file and the questions offered with it."""

    path: Path
    asks: dict[str, tuple[str, ...]]  # by language; English is always there

    def questions(self, language: str) -> tuple[str, ...]:
        """The questions in a language, or in English."""
        return self.asks.get(language) or self.asks["en"]

    @cached_property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()

    @cached_property
    def data_url(self) -> str:
        """The picture inside the page: small, public, and no path of this machine in an address."""
        return f"data:image/png;base64,{base64.b64encode(self.data).decode()}"


def load_examples(folder: Path = FOLDER) -> list[Example]:
    """The examples listed in ``examples.json``; an absent folder means none."""
    try:
        listed = json.loads((folder / "examples.json").read_text("utf-8"))
    except FileNotFoundError:
        return []
    return [
        Example(folder / entry["file"], {k: tuple(v) for k, v in entry["questions"].items()})
        for entry in listed
    ]
