"""Named ways to answer: each fills the panel's fields, which stay editable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from instructblip.engine.base import ModelCard, SamplingParams
from webui.sampling import FIELDS

# A preset leaves these as they are: they belong to the chat and its owner.
_KEPT = ("seed", "stop", "layout")
# transformers' default, which LAVIS's nucleus sampling has, since it names no top_k.
_LAVIS_TOP_K = 50


def presets(card: ModelCard) -> dict[str, SamplingParams]:
    """Name → parameters: the checkpoint's own, nucleus sampling, and LAVIS's beam search.

    The figures are the defaults of ``generate`` in LAVIS's blip2_vicuna_instruct.py; its
    max_length of 256 counts the start token.
    """
    nucleus = replace(card.generation, temperature=1.0, top_k=_LAVIS_TOP_K, top_p=0.9, num_beams=1)
    beams = SamplingParams(
        max_new_tokens=255, top_p=0.9, repetition_penalty=1.5, num_beams=5, length_penalty=1.0
    )
    return {"standard": card.generation, "creative": nucleus, "beams": beams}


def rows(card: ModelCard) -> dict[str, list[Any]]:
    """The presets in the order of the panel, None for a field that stays as it is."""
    return {
        name: [None if field in _KEPT else getattr(params, field) for field in FIELDS]
        for name, params in presets(card).items()
    }
