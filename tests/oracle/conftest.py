"""LAVIS's outputs on the checkpoint in ``data``, and that checkpoint loaded once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import instructblip
from instructblip.model import InstructBlip

DATA = Path(__file__).with_name("data")


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    return json.loads((DATA / "expected.json").read_text())


@pytest.fixture(scope="session")
def tensors() -> dict[str, torch.Tensor]:
    return load_file(DATA / "expected.safetensors")


@pytest.fixture(scope="session")
def model() -> InstructBlip:
    return instructblip.load(DATA, device="cpu", dtype="float32")
