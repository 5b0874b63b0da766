"""What ``infer`` is asked: pictures, folders and lists → rows of (picture, prompt).

A list is CSV or JSONL in UTF-8. A bad row of a list becomes a :class:`BadRow` that names its line;
the rows around it stay.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.errors import BadRequest, PictureError
from instructblip.images import SUFFIXES

LISTS = (".csv", ".jsonl", ".ndjson")
PICTURE_KEYS = ("img_path", "image", "picture")
PROMPT_KEYS = ("prompt", "question")


@dataclass(frozen=True, slots=True)
class Row:
    """One question. ``img_path`` is as seen from the caller's folder; ``origin`` names the row."""

    img_path: str
    prompt: str
    origin: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be asked, and why."""

    origin: str
    reason: str


def read_rows(sources: Sequence[str], prompt: str | None) -> list[Row | BadRow]:
    """All rows of pictures, folders and lists, in the order given.

    Args:
        sources: paths. A folder stands for its pictures (not those of folders in it), by name; a
            ``.csv``, ``.jsonl`` or ``.ndjson`` file for its rows, whose paths start at the file.
        prompt: for pictures and folders, and for rows of a list that have none.

    Raises:
        BadRequest: a path is not there, a folder holds no picture, a list no row, or no prompt.
    """
    if prompt is not None and not prompt.strip():
        raise BadRequest("--prompt is empty. Write the question or instruction.", code="no_prompt")
    rows: list[Row | BadRow] = []
    for source in sources:
        path = Path(source).expanduser()
        if not source.strip() or not os.path.exists(path):
            raise PictureError(
                f"--img_path {source!r} is not there. Check the path of the picture, folder or list.",
                code="picture_absent",
                name=source,
            )
        if path.is_file() and path.suffix.lower() in LISTS:
            rows += _of_list(path, prompt)
        elif prompt is None:
            raise BadRequest(
                f"--prompt is missing: {source} is no list (.csv, .jsonl) with prompts in it.",
                code="no_prompt",
            )
        else:
            files = _of_folder(path) if path.is_dir() else [path]
            rows += [_checked(str(file), prompt, str(file)) for file in files]
    return rows


def _of_folder(folder: Path) -> list[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise BadRequest(f"Cannot read the folder {folder}: {error.strerror}.") from error
    found = [
        file for file in inside
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]  # fmt: skip
    if not found:
        raise BadRequest(
            f"The folder {folder} holds no pictures ({', '.join(p[1:] for p in SUFFIXES)}); "
            "folders in it are not searched. Name a folder with pictures in it.",
            code="folder_empty",
        )
    return found


def _of_list(path: Path, prompt: str | None) -> list[Row | BadRow]:
    try:
        # A byte that is no UTF-8 spoils its own row only; a byte order mark is Excel's.
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise BadRequest(f"Cannot read the list {path}: {error.strerror}.") from error
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    rows: list[Row | BadRow] = []
    for line, cells in read(text):
        origin = f"{path}, line {line}"
        if isinstance(cells, str):
            rows.append(BadRow(origin, cells))
        else:
            rows.append(_of_cells(path, cells, prompt, origin))
    if not rows:
        raise BadRequest(f"The list {path} holds no rows.", code="list_empty")
    return rows


def _of_cells(path: Path, cells: dict[str, Any], prompt: str | None, origin: str) -> Row | BadRow:
    """A row from named cells."""
    picture = next((cells[key] for key in PICTURE_KEYS if key in cells), None)
    question = next((cells[key] for key in PROMPT_KEYS if key in cells), None)
    if picture is None:
        return BadRow(origin, f"no picture is named. Call it {PICTURE_KEYS[0]}.")
    if question is None or question == "":
        question = prompt
    if question is None:
        return BadRow(origin, f"no {PROMPT_KEYS[0]}, and no --prompt for such rows.")
    if not isinstance(picture, str) or not isinstance(question, str):
        return BadRow(origin, "picture and prompt must be texts.")
    return _checked(str(path.parent / picture) if picture.strip() else "", question, origin)


def _checked(img_path: str, prompt: str, origin: str) -> Row | BadRow:
    """A row that can be asked and written down."""
    if not img_path:
        return BadRow(origin, "no picture is named.")
    if not prompt.strip():
        return BadRow(origin, "the prompt is empty.")
    if "\0" in img_path:
        return BadRow(origin, "the path holds a zero byte.")
    try:
        (img_path + prompt).encode()
    except UnicodeEncodeError:
        shown = origin.encode("utf-8", "replace").decode()
        return BadRow(shown, "the row is not UTF-8. Save the list (or name the file) in UTF-8.")
    return Row(img_path, prompt, origin)


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line numbers with the object of each line, or what is wrong with it."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON ({error})."
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield number, 'not a JSON object as {"img_path": …, "prompt": …}.'


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The same for CSV. A first row without a known column name is a row as the others."""
    names: list[str] | None = None
    for number, cells in csv_records(text):
        if isinstance(cells, str):
            yield number, cells
            continue
        if not any(cell.strip() for cell in cells):
            continue  # spreadsheets end in rows of nothing but commas
        if names is None:
            names = [PICTURE_KEYS[0], PROMPT_KEYS[0]]
            header = [cell.strip().lower() for cell in cells]
            if any(key in header for key in PICTURE_KEYS):
                names = header
                continue
        if len(cells) > len(names):
            yield (
                number,
                (
                    f"{len(cells)} cells where {len(names)} belong. "
                    "Put a text with commas in double quotes."
                ),
            )
        else:
            yield number, dict(zip(names, cells, strict=False))


def csv_records(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Records with the line each starts at, or what is wrong with it; blank lines are left out.

    A quote that is never closed spoils its own line: reading goes on at the next.
    """
    lines = list(io.StringIO(text, newline=""))
    at = 0
    while at < len(lines):
        reader = csv.reader((lines[i] for i in range(at, len(lines))), strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            yield at + 1, f"not CSV ({error})."
            at += 1
            continue
        if cells:
            yield at + 1, cells
        at += reader.line_num
