"""JSON files of a checkpoint: read, and their values checked before anything is made of them.

Only keys that a table names are taken. Whatever else a file says changes nothing in the model, and
may name attributes of the library's classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.errors import CheckpointError

# Far above any configuration or index; a file of weights under a wrong name is larger.
MOST_JSON = 2**26
_SHOWN = 80  # characters of a value in a message


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, in UTF-8 with or without a byte order mark.

    Raises:
        CheckpointError: absent, no file, too large, not JSON, or not an object.
    """
    try:
        size = path.stat().st_size if path.is_file() else -1
        if size > MOST_JSON:
            raise _no_json(path, f"{size / 1e6:,.0f} MB, which no such file takes")
        if size < 0 and path.exists():
            raise _no_json(path, "a folder or a device")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}). Fetch the folder again, whole.",
            code="checkpoint_absent",
            name=str(path),
        ) from error
    except RecursionError as error:
        raise _no_json(path, "nested without end") from error
    except ValueError as error:
        raise _no_json(path, str(error)) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path} is not a JSON object. Fetch it again.", code="checkpoint_file", name=str(path)
        )
    return found


def _no_json(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not JSON ({why[:160]}). Fetch it again.", code="checkpoint_file", name=str(path)
    )


def peek_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file that need not be there; an empty one where it cannot be read."""
    try:
        return read_json(path) if path.is_file() else {}
    except (CheckpointError, OSError):
        return {}


@dataclass(frozen=True, slots=True)
class Want:
    """What a key's value has to be, in words and as a test; ``optional``: null is a value too."""

    words: str
    fits: Callable[[Any], bool]
    optional: bool = False


def whole(low: int, high: int, *, optional: bool = False) -> Want:
    """A whole number from ``low`` to ``high``."""
    return Want(
        f"a whole number from {low:,} to {high:,}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
        optional,
    )


def number(low: float, high: float, *, optional: bool = False) -> Want:
    """A number above ``low`` and below ``high``."""
    return Want(
        f"a number between {low:g} and {high:g}", lambda v: _between(low, v, high), optional
    )


def _between(low: float, value: Any, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return low < value < high  # false of NaN


def switch(*, optional: bool = False) -> Want:
    """True or false."""
    return Want("true or false", lambda v: isinstance(v, bool), optional)


def word(allowed: Collection[str], *, optional: bool = False) -> Want:
    """One of some words."""
    few = sorted(allowed)[:8]
    more = ", …" if len(allowed) > len(few) else ""
    return Want(
        f"one of {', '.join(few)}{more}", lambda v: isinstance(v, str) and v in allowed, optional
    )


def table(*, optional: bool = False) -> Want:
    """A JSON object."""
    return Want("an object", lambda v: isinstance(v, dict), optional)


def checked(
    path: Path, raw: Mapping[str, Any], wants: Mapping[str, Want], inside: str = ""
) -> dict[str, Any]:
    """The values of the keys that ``wants`` names and ``raw`` has.

    Args:
        path: the file, for the message.
        raw: an object of it.
        wants: key → what its value has to be.
        inside: the object's own key, where it is not the whole file.

    Raises:
        CheckpointError: a value is wrong; the file, the key and the value are named.
    """
    found = {}
    for key, want in wants.items():
        if key not in raw:
            continue
        value = raw[key]
        if not (want.fits(value) or (want.optional and value is None)):
            raise wrong_value(path, f"{inside}.{key}" if inside else key, value, want.words)
        found[key] = value
    return found


def inner(path: Path, raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; an empty one where it is absent or null.

    Raises:
        CheckpointError: another kind of value.
    """
    return checked(path, raw, {key: table(optional=True)}).get(key) or {}


def wrong_value(path: Path, key: str, value: object, words: str) -> CheckpointError:
    """The error of a value that is none of those that the key may have."""
    hint = ", without quotes," if isinstance(value, str) and _reads_as_number(value) else ""
    return CheckpointError(
        f"{path}: {key} = {shown(value)}, but {words}{hint} is needed. Restore the file that "
        "belongs to the weights, or mend the value.",
        code="checkpoint_value",
        name=str(path),
    )


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def shown(value: object) -> str:
    """A value as it stands in its file: on one line, in ASCII, not too long."""
    try:
        text = json.dumps(value, default=repr)
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
