"""Which column of a list holds the pictures, and which the questions.

Told by the names of a header, as other people's lists have them, else by what stands in the cells:
pictures end in a picture's suffix or are there, questions in a question mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from instructblip.errors import BadRequest

# The surest first: a list with `image` as a number and `file_name` beside it is not unusual.
PICTURE_KEYS = (
    "img_path", "image_path", "picture_path", "photo_path", "img_file", "image_file", "img_name",
    "image_name", "picture_name", "file_name", "filename", "file_path", "path", "image", "img",
    "picture", "photo", "file", "images", "pictures", "图片路径", "图像路径", "图片", "图像", "照片", "文件名", "文件",
    "路径", "url", "img_url", "image_url", "picture_url", "链接",
)  # fmt: skip
PROMPT_KEYS = (
    "prompt", "question", "query", "instruction", "text", "text_input", "prompts", "questions",
    "input", "提示词", "提示", "问题", "提问", "指令", "文本",
)  # fmt: skip
_MARKS = ("?", "？")
_SAMPLE = 20  # rows whose cells are looked at

Fits = Callable[[str], int]  # how surely; 0 where it does not


def plain_name(name: str) -> str:
    """A column's name without capitals, spaces, hyphens and underscores."""
    return re.sub(r"[\s_\-]+", "", name).casefold()


_PICTURES = tuple(map(plain_name, PICTURE_KEYS))
_PROMPTS = tuple(map(plain_name, PROMPT_KEYS))


def is_name(cell: str) -> bool:
    """Whether a cell is the known name of a column."""
    return plain_name(cell) in (*_PICTURES, *_PROMPTS)


def picture_of(cells: dict[str, Any]) -> Any:
    """What a row names as its picture: the surest name's cell that is not blank; None without one."""
    return _first(cells, _PICTURES)


def prompt_of(cells: dict[str, Any]) -> Any:
    """The same for its question."""
    return _first(cells, _PROMPTS)


def _first(cells: dict[str, Any], keys: Sequence[str]) -> Any:
    found = [cells[key] for key in keys if key in cells]
    return next((v for v in found if v is not None and v != ""), found[0] if found else None)


@dataclass(frozen=True, slots=True)
class Columns:
    """``names``: by which :func:`picture_of` and :func:`prompt_of` find the cells; ``header``:
    whether the first row is names."""

    names: tuple[str, ...]
    header: bool


def find_columns(rows: Sequence[list[str]], is_picture: Fits, *, asked: bool) -> Columns | None:
    """The columns of a table; None where they cannot be told.

    Args:
        rows: the first rows of the table, a header among them.
        is_picture: whether a cell names a picture.
        asked: whether rows without a question are asked one all the same.
    """
    first, body = rows[0], rows[1 : 1 + _SAMPLE]
    pictured = any(is_picture(cell) and not is_name(cell) for cell in first)
    named = not pictured and any(map(is_name, first))
    strange = not pictured and not named and not any(map(_is_question, first))
    header = named or (strange and any(is_picture(cell) for row in body for cell in row))
    names = [plain_name(cell) for cell in first] if header else [""] * max(len(first), 2)
    body = body if header else rows[:_SAMPLE]
    if not any(name in _PICTURES for name in names):
        at = _only(body, names, is_picture)
        if at is None and (header or len(names) > 2):
            return None
        names[at or 0] = _PICTURES[0]
    if not any(name in _PROMPTS for name in names):
        at = _only(body, names, _is_question)
        if at is None and not header and len(first) == 2:
            at = next(n for n, name in enumerate(names) if not name)
        if at is not None:
            names[at] = _PROMPTS[0]
        elif not asked:
            return None
    return Columns(tuple(names), header)


def _only(rows: Sequence[list[str]], names: Sequence[str], fits: Fits) -> int | None:
    """The one column without a known name of whose cells more than half fit."""
    found = []
    for at, name in enumerate(names):
        cells = [row[at] for row in rows if at < len(row) and row[at].strip()]
        known = name in (*_PICTURES, *_PROMPTS)
        if not known and 2 * sum(map(bool, map(fits, cells))) > len(cells):
            found.append(at)
    return found[0] if len(found) == 1 else None


def _is_question(cell: str) -> bool:
    return cell.rstrip("\"'”’ ").endswith(_MARKS)


def not_told(path: object, first: Sequence[str], delimiter: str) -> BadRequest:
    """The error of a list whose columns cannot be told: what was seen, and what is wanted."""
    cells = ", ".join(f"“{cell.strip()[:40]}”" for cell in first[:8]) + (", …" * (len(first) > 8))
    parted = f", parted by {delimiter}s" if len(first) > 1 else ""
    return BadRequest(
        f"Which columns of the list {path} are the pictures and the questions cannot be told. Its "
        f"first line has {len(first)} of them{parted}: {cells}. Call them img_path and prompt in "
        "the first line; where there are no questions, give one with --prompt.",
        code="list_columns",
    )
