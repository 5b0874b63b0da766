"""The engine: submit(Request) → stream of Delta."""

from instructblip.engine.base import (
    Delta,
    Engine,
    FinishReason,
    Health,
    ModelCard,
    PastTurn,
    Phase,
    Request,
    SamplingParams,
    Statistics,
    Stream,
)

__all__ = [
    "Delta", "Engine", "FinishReason", "Health", "ModelCard", "PastTurn", "Phase",
    "Request", "SamplingParams", "Statistics", "Stream",
]  # fmt: skip
