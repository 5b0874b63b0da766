"""Checkpoint properties: one typed file, ``properties.json``, next to the weights.

Code reads what a checkpoint needs from here; no constant of one model stands in code. A folder
without the file gets :func:`official_properties`, LAVIS's values for InstructBLIP-Vicuna.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructblip.engine.base import SamplingParams
from instructblip.errors import BadParameter, CheckpointError

FILE_NAME = "properties.json"
TEMPLATES = ("plain", "vicuna_v1.1")
LAYOUTS = ("refresh", "keep", "append")
QFORMER_TEXTS = ("question", "question_then_history")
# How many earlier turns the Q-Former reads with "question_then_history".
QFORMER_TURNS = 2
# Source: the model card of Salesforce/instructblip-vicuna-7b and LAVIS's projects/instructblip.
OFFICIAL_LICENCE = (
    "research use only, non-commercial (InstructBLIP); LLaMA's and Vicuna's terms hold too"
)


@dataclass(frozen=True, slots=True)
class Properties:
    """What this checkpoint is, how it is prompted, and what may be asked of it.

    ``qformer_text``: ``question``, or ``question_then_history`` (the question, ``[SEP]``, the last
    two turns). ``qformer_truncation``: the side that is cut at ``qformer_max_tokens``.
    ``ln_vision_eps``: of the layer norm after the ViT; None: the ViT's own.
    ``context_length`` counts all positions of the language model, image tokens included.
    """

    name: str
    template: str = "plain"
    layouts: tuple[str, ...] = LAYOUTS
    default_layout: str = "refresh"
    query_tokens: int = 32
    image_size: int = 224
    qformer_text: str = "question"
    qformer_max_tokens: int = 128
    qformer_truncation: str = "left"
    ln_vision_eps: float | None = None
    context_length: int = 2048
    languages: tuple[str, ...] = ("en",)
    licence: str = ""
    can_ask: dict[str, tuple[str, ...]] = field(default_factory=dict)
    world: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scenes: bool = False
    generation: SamplingParams = field(default_factory=SamplingParams)


def official_properties(
    name: str,
    *,
    query_tokens: int,
    image_size: int,
    context: int,
    max_text: int = 128,
    ln_vision_eps: float = 1e-5,
) -> Properties:
    """LAVIS's values for the InstructBLIP-Vicuna checkpoints.

    Source: lavis/models/blip2_models/blip2_vicuna_instruct.py (max_txt_len 128, truncation on the
    left, repetition penalty 1.5) and lavis/configs of the model.
    """
    return Properties(
        name=name,
        query_tokens=query_tokens,
        image_size=image_size,
        context_length=context,
        qformer_max_tokens=max_text,
        ln_vision_eps=ln_vision_eps,
        licence=OFFICIAL_LICENCE,
        generation=SamplingParams(max_new_tokens=255, repetition_penalty=1.5),
    )


def read_properties(path: Path) -> Properties:
    """Read and check a properties file.

    Raises:
        CheckpointError: unreadable, not JSON, an unknown key or a value out of its set.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}). Restore it, or remove it if the folder "
            "holds official InstructBLIP weights.",
            code="properties",
            name=str(path),
        ) from error
    if not isinstance(raw, dict):
        raise _bad(path, "the file", type(raw).__name__, "a JSON object")
    known = {f.name for f in dataclasses.fields(Properties)}
    values: dict[str, Any] = {k: v for k, v in raw.items() if k in known}
    if "name" not in values:
        raise _bad(path, "name", None, "the model's name")
    try:
        return _checked(path, _typed(values))
    except (TypeError, ValueError, AttributeError) as error:
        raise _bad(path, "a value", error, "the types that the documentation lists") from error


def write_properties(path: Path, properties: Properties) -> None:
    """Write a properties file that :func:`read_properties` reads back as the same."""
    values = {"version": 1, **dataclasses.asdict(properties)}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _typed(values: dict[str, Any]) -> Properties:
    for key in ("layouts", "languages"):
        if key in values:
            values[key] = tuple(values[key])
    for key in ("can_ask", "refusals"):
        if key in values:
            values[key] = {lang: tuple(items) for lang, items in values[key].items()}
    if "generation" in values:
        chosen = dict(values["generation"])
        chosen["stop"] = tuple(chosen.get("stop", ()))
        values["generation"] = SamplingParams(**chosen).checked()
    return Properties(**values)


def _checked(path: Path, p: Properties) -> Properties:
    _one_of(path, "template", p.template, TEMPLATES)
    _one_of(path, "qformer_text", p.qformer_text, QFORMER_TEXTS)
    _one_of(path, "qformer_truncation", p.qformer_truncation, ("left", "right"))
    for layout in p.layouts:
        _one_of(path, "layouts", layout, LAYOUTS)
    _one_of(path, "default_layout", p.default_layout, p.layouts)
    for name in ("query_tokens", "image_size", "qformer_max_tokens", "context_length"):
        value = getattr(p, name)
        if not isinstance(value, int) or value < 1:
            raise _bad(path, name, value, "a positive whole number")
    if p.ln_vision_eps is not None and not 0 < p.ln_vision_eps < 1:
        raise _bad(path, "ln_vision_eps", p.ln_vision_eps, "a number between 0 and 1, or null")
    return p


def check_layout(layout: str | None, allowed: tuple[str, ...], default: str) -> str:
    """The layout to use: the asked one, or the checkpoint's default.

    Raises:
        BadParameter: the checkpoint does not allow it.
    """
    if layout is None:
        return default
    if layout not in allowed:
        raise BadParameter(
            f"layout = {layout!r} is not one of this model's layouts: {', '.join(allowed)}.",
            code="bad_layout",
            value=layout,
            allowed=", ".join(allowed),
        )
    return layout


def _one_of(path: Path, key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _bad(path, key, value, "one of " + ", ".join(allowed))


def _bad(path: Path, key: str, value: object, want: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {key} = {value!r}, but {want} is needed. Mend the file or fetch it again.",
        code="properties",
        name=str(path),
    )
