"""One tiny checkpoint a session, and engines over it that are always closed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import instructblip
from instructblip.engine.local import LocalEngine
from instructblip.model import InstructBlip
from tests.tiny import make_checkpoint

APPEND = {
    "name": "tiny", "template": "plain", "default_layout": "append", "query_tokens": 4,
    "image_size": 28, "qformer_text": "question_then_history", "qformer_max_tokens": 32,
    "qformer_truncation": "right", "context_length": 256, "generation": {"max_new_tokens": 8},
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"), properties=APPEND)


@pytest.fixture
def tiny_model(tiny_folder: Path) -> InstructBlip:
    return instructblip.load(tiny_folder, device="cpu")


@pytest.fixture
def new_engine(tiny_model: InstructBlip) -> Iterator[Callable[..., LocalEngine]]:
    engines: list[LocalEngine] = []

    def make(model: InstructBlip | None = None, **kwargs: int) -> LocalEngine:
        engines.append(LocalEngine(model or tiny_model, **kwargs))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
