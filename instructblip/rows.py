"""What ``infer`` is asked: pictures, folders and lists → rows of (picture, prompt).

A list is CSV in any usual dialect, JSON objects one a line, or an array of them, in the encoding that
it must be in. A bad row of a list becomes a :class:`BadRow` that names its line; the rows around it
stay. A list of which nothing can be asked is one error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from instructblip.columns import (
    find_columns,
    is_name,
    not_told,
    picture_of,
    plain_name,
    prompt_of,
)
from instructblip.errors import BadRequest, PictureError
from instructblip.images import SUFFIXES
from instructblip.paths import as_file, of_windows
from instructblip.tables import DELIMITERS, csv_records, find_dialect, json_records
from instructblip.texts import (
    Decoded,
    checked,
    decode,
    from_flag,
    is_utf8,
    storable,
    undecoded,
    unreadable,
)

LISTS = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".json")
JSON_LISTS = (".jsonl", ".ndjson", ".json")
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
_PACKED = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # the beginnings of .xlsx and .xls
_HEAD = 21  # records that the columns are told by

Tell = Callable[[str], None]


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


def read_rows(
    sources: Sequence[str],
    prompt: str | None,
    encoding: str | None = None,
    tell: Tell | None = None,
) -> list[Row | BadRow]:
    """All rows of pictures, folders and lists, in the order given.

    Args:
        sources: paths. A folder stands for its pictures (not those of folders in it), by name; a
            file of :data:`LISTS` for its rows, whose paths start at the file.
        prompt: for pictures and folders, and for rows of a list that have none.
        encoding: of the lists; told by their bytes where it is not given.
        tell: gets a sentence about what was guessed.

    Raises:
        BadRequest: a path is not there, a folder holds no picture, a list no row that can be asked,
            or no prompt (``list_…``, ``folder_empty``, ``no_prompt``, ``text_…``).
    """
    prompt = None if prompt is None else from_flag(prompt)
    if prompt is not None and not prompt.strip():
        raise BadRequest("--prompt is empty. Write the question or instruction.", code="no_prompt")
    rows: list[Row | BadRow] = []
    for source in sources:
        path = _found(source)
        if is_list(path):
            rows += _of_list(path, prompt, encoding, tell)
        elif prompt is None:
            raise BadRequest(
                f"--prompt is missing: {source} is no list (.csv, .jsonl) with prompts in it.",
                code="no_prompt",
            )
        else:
            files = _of_folder(path) if path.is_dir() else [path]
            rows += [_of_file(file, prompt) for file in files]
    return rows


def is_list(path: Path) -> bool:
    """Whether this is a file whose name says that it is a list."""
    return path.suffix.lower() in LISTS and path.is_file()


def _found(source: str) -> Path:
    path = as_file(source)
    if not source.strip() or not os.path.exists(path):
        raise PictureError(
            f"--img_path {source!r} is not there. Check the path of the picture, folder or list.",
            code="picture_absent",
            name=source,
        )
    if path.suffix.lower() in SPREADSHEETS and path.is_file():
        raise _spreadsheet(path)
    return path


def _spreadsheet(path: Path) -> BadRequest:
    return BadRequest(
        f"{path} is a spreadsheet, which cannot be read here. Save it as CSV (in Excel: File, "
        "Save As, CSV UTF-8), and name that file.",
        code="list_spreadsheet",
    )


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


def _of_file(file: Path, prompt: str) -> Row | BadRow:
    name = str(file)
    if undecoded(name) is not None:
        return BadRow(storable(name), "the file's name is not UTF-8. Rename it.")
    return _checked(name, prompt, name)


# --- lists ------------------------------------------------------------------------------------------


def _of_list(
    path: Path, prompt: str | None, encoding: str | None, tell: Tell | None
) -> list[Row | BadRow]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(f"Cannot read the list {path}: {error.strerror}.") from error
    if data.startswith(_PACKED):
        raise _spreadsheet(path)
    found = _decoded(data, encoding)
    if tell is not None and encoding is None and not found.encoding.startswith("utf-"):
        tell(f"{path}: read as {found.encoding.upper()}; --encoding names another encoding.")
    rows: list[Row | BadRow] = []
    for line, cells in _records(path, found.text, asked=prompt is not None):
        origin = storable(f"{path}, line {line}")
        if isinstance(cells, str):
            rows.append(BadRow(origin, cells))
        else:
            rows.append(_of_cells(path, cells, prompt, origin))
    if not rows:
        raise BadRequest(f"The list {path} holds no rows.", code="list_empty")
    first = rows[0]
    if len(rows) > 1 and isinstance(first, BadRow) and all(isinstance(r, BadRow) for r in rows):
        raise BadRequest(
            f"None of the {len(rows)} rows of the list can be asked: {first.origin}: {first.reason}",
            code="list_unread",
        )
    return rows


def _decoded(data: bytes, encoding: str | None) -> Decoded:
    """A list's text. Bytes that are no UTF-8 in a list that is spoil their own rows only."""
    if encoding is not None:
        return decode(data, encoding)
    good, broken = 0, 0
    for line in data.splitlines():
        if not line.isascii():
            good, broken = (good + 1, broken) if is_utf8(line) else (good, broken + 1)
    escaped = Decoded(data.decode("utf-8-sig", "surrogateescape"), "utf-8")
    if good >= broken:
        # Zero bytes are UTF-16 without its mark.
        return decode(data) if not broken else escaped
    try:
        return decode(data)
    except BadRequest as error:
        if error.values.get("encoding") != "UTF-8":  # what its byte order mark says, and is not
            raise
        return escaped


Records = Iterator[tuple[int, dict[str, Any] | str]]


def _records(path: Path, text: str, *, asked: bool) -> Records:
    """Line numbers with the named cells of each row, or what is wrong with it."""
    suffix = path.suffix.lower()
    if suffix in JSON_LISTS or (suffix == ".txt" and text.lstrip()[:1] in ("{", "[")):
        for line, value in json_records(text):
            named = isinstance(value, dict)
            yield line, {plain_name(k): v for k, v in value.items()} if named else value
        return
    yield from _csv_rows(path, text, asked=asked)


def _csv_rows(path: Path, text: str, *, asked: bool) -> Records:
    def is_picture(cell: str) -> int:
        bare = cell.strip("\"' \t")
        return 2 * os.path.isfile(path.parent / bare) or int(bare.lower().endswith(SUFFIXES))

    default = "\t" if path.suffix.lower() in (".tsv", ".tab", ".txt") else ","
    dialect = find_dialect(text, is_name, is_picture, default)

    def records() -> Iterator[tuple[int, list[str] | str]]:
        for number, cells in csv_records(text, dialect):
            # Spreadsheets end in rows of nothing but commas.
            if isinstance(cells, str) or any(cell.strip() for cell in cells):
                yield number, cells

    head = [cells for _, cells in islice(records(), _HEAD) if isinstance(cells, list)]
    columns = find_columns(head, is_picture, asked=asked) if head else None
    if head and columns is None:
        raise not_told(path, head[0], DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter)))
    names = columns.names if columns is not None else ()
    for number, cells in records():
        if isinstance(cells, str):
            yield number, cells
        elif columns is None or not columns.header or cells != head[0]:
            yield number, _named(names, cells)


def _named(names: Sequence[str], cells: list[str]) -> dict[str, Any] | str:
    while len(cells) > len(names) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) > len(names):
        return (
            f"{len(cells)} cells where {len(names)} belong. Put a text with commas (or whatever "
            "stands between the cells) in double quotes."
        )
    return dict(zip(names, cells, strict=False))


# --- a row ------------------------------------------------------------------------------------------


def _of_cells(path: Path, cells: dict[str, Any], prompt: str | None, origin: str) -> Row | BadRow:
    """A row from named cells."""
    picture, question = picture_of(cells), prompt_of(cells)
    if picture is None:
        return BadRow(origin, "no picture is named. Call it img_path.")
    if question is None or (isinstance(question, str) and not question.strip()):
        question = prompt if prompt is not None else question
    if question is None or question == "":
        return BadRow(origin, "no prompt, and no --prompt for such rows.")
    if not isinstance(picture, str) or not isinstance(question, str):
        return BadRow(origin, "picture and prompt must be texts.")
    if not picture.strip():
        return BadRow(origin, "no picture is named.")
    for data in (undecoded(picture), undecoded(question)):
        if data is not None:
            return BadRow(origin, str(unreadable(data)))
    try:
        file = as_file(picture, path.parent)
    except PictureError as error:
        return BadRow(origin, str(error))
    if of_windows(picture) and not os.path.exists(file):
        return BadRow(
            origin,
            f"{picture} is a path of Windows, and this is another system. Write paths from the "
            "list's folder, as pictures/a.png.",
        )
    return _checked(str(file), question, origin)


def _checked(img_path: str, prompt: str, origin: str) -> Row | BadRow:
    """A row that can be asked and written down."""
    if "\0" in img_path or storable(img_path) != img_path:
        return BadRow(storable(origin), "the path holds a zero byte or half a character.")
    try:
        prompt = checked(prompt)
    except BadRequest as error:
        return BadRow(origin, str(error))
    if not prompt.strip():
        return BadRow(origin, "the prompt is empty.")
    return Row(img_path, prompt, origin)
