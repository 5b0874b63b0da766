"""The answer settings between the page's panel and :class:`SamplingParams`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from instructblip.engine.base import ModelCard, SamplingParams
from instructblip.errors import BadParameter
from webui.i18n import text

# The panel's fields, in the order in which handlers receive them. Browsers keep lists of values in
# this order: a new field goes to the end.
FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "max_new_tokens",
    "seed",
    "stop",
    "layout",
    "num_beams",
    "length_penalty",
)
_FIRST_FIELDS = 8  # kept by browsers before there were beams
_WHOLE = ("top_k", "max_new_tokens", "num_beams")
_NUMBERS = tuple(name for name in FIELDS if name not in ("seed", "stop", "layout"))
RETRY_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Settings:
    """What one question is answered with."""

    sampling: SamplingParams
    layout: str | None


def defaults(card: ModelCard) -> tuple[Any, ...]:
    """The panel as the checkpoint wants it."""
    base = card.generation
    seed = "" if base.seed is None else str(base.seed)
    return (
        base.temperature, base.top_k, base.top_p, base.repetition_penalty, base.max_new_tokens,
        seed, "\n".join(base.stop), card.default_layout, base.num_beams, base.length_penalty,
    )  # fmt: skip


def parse(values: tuple[Any, ...], card: ModelCard, language: str) -> Settings:
    """The panel's values as parameters.

    Raises:
        BadParameter: a field is empty or out of its range; the message names the field as shown.
    """
    panel = dict(zip(FIELDS, values, strict=True))
    numbers: dict[str, Any] = {}
    for name in _NUMBERS:
        label = text(language, f"ui_{name}")
        value = panel[name]
        if not _is_number(value):
            raise BadParameter(f"{label} needs a number.", code="number_missing", name=label)
        whole = name in _WHOLE
        if whole and value != int(value):
            raise BadParameter(
                f"{label} must be whole.", code="number_not_whole", name=label, value=f"{value:g}"
            )
        numbers[name] = int(value) if whole else float(value)
    params = replace(
        card.generation,  # what the panel does not show
        **numbers,
        seed=_seed(panel["seed"]),
        stop=tuple(line for line in str(panel["stop"] or "").split("\n") if line),
    )
    try:
        params.checked()
    except BadParameter as error:
        shown = text(language, f"ui_{error.values.get('name', '')}")
        code = "stop_strings" if error.values.get("name") == "stop" else error.code
        raise BadParameter(str(error), code=code, **{**error.values, "name": shown}) from error
    layout = panel["layout"] if panel["layout"] in card.layouts else None
    return Settings(params, layout)


def for_retry(settings: Settings) -> tuple[Settings, bool]:
    """Settings that can give another answer than the last one, and whether they were changed."""
    if settings.sampling.temperature > 0:
        return Settings(replace(settings.sampling, seed=None), settings.layout), False
    sampled = replace(settings.sampling, temperature=RETRY_TEMPERATURE, seed=None)
    return Settings(sampled, settings.layout), True


def restored(kept: str, card: ModelCard) -> tuple[Any, ...] | None:
    """Values kept in the browser, if they still fit the panel and this model."""
    try:
        values = tuple(json.loads(kept)) if kept else None
        if values is None or len(values) not in (_FIRST_FIELDS, len(FIELDS)):
            return None
        values += defaults(card)[len(values) :]
        settings = parse(values, card, "en")
    except (ValueError, TypeError, RecursionError, BadParameter):
        return None
    panel = dict(zip(FIELDS, values, strict=True))
    panel["seed"] = "" if panel["seed"] is None else str(panel["seed"]).strip()
    panel["stop"] = str(panel["stop"] or "")
    # A layout that another model had would be refused by the menu at every question.
    panel["layout"] = settings.layout or card.default_layout
    return tuple(panel.values())


def _is_number(value: object) -> bool:
    """Whether it can be compared and shown: JSON also has infinities and endless digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN


def _seed(value: object) -> int | None:
    written = str(value if value is not None else "").strip()
    if not written:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", written) or int(written) > 2**63 - 1:
        raise BadParameter(
            f"Seed must be a whole number from 0 to {2**63 - 1}, not {written[:40]!r}.",
            code="seed",
            value=written[:40],
        )
    return int(written)


def as_dict(params: SamplingParams) -> dict[str, Any]:
    """Plain values, to be kept with a turn."""
    return asdict(params)
