"""The file of answers, read and written: JSONL or CSV, in the form that another program saved it in.

A spreadsheet that opened the file and saved it leaves a byte order mark, semicolons or tabs, UTF-16
or GB18030, other line ends, fewer quotes, and columns of its user's own. Such a file is read, and
goes on in the same form.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from instructblip.columns import plain_name
from instructblip.errors import BadRequest
from instructblip.tables import DELIMITERS, Dialect, csv_records, sep_line
from instructblip.texts import decode


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the file of answers: what was asked, what was said, by which model and how."""

    img_path: str
    prompt: str
    answer: str
    model: str
    generation: str


FIELDS = tuple(field.name for field in fields(Record))
_NAMES = tuple(map(plain_name, FIELDS))


class Foreign(Exception):
    """The file is none of ours, or cannot be gone on with; the argument is a line's number or why."""

    def __str__(self) -> str:
        why = self.args[0]
        return f"line {why} of it is no answer that infer wrote" if isinstance(why, int) else why


@dataclass(frozen=True, slots=True)
class Form:
    """How a file of answers is written.

    Attributes:
        encoding: Python's name.
        mark: its byte order mark.
        end: of a line.
        delimiter: between cells of CSV.
        skip: lines before the header of CSV.
        columns: of CSV, by their plain names.
    """

    encoding: str = "utf-8"
    mark: bytes = b""
    end: str = "\n"
    delimiter: str = ","
    skip: int = 0
    columns: tuple[str, ...] = _NAMES

    @property
    def errors(self) -> str:
        """How half-read letters are kept, so that a text's size in bytes is the file's."""
        return "surrogateescape" if self.encoding == "utf-8" else "strict"

    def told(self) -> str:
        """The form in words, where it is not ours; empty where it is."""
        parts = [
            self.encoding.upper() if self.encoding != "utf-8" else "",
            "a byte order mark" if self.mark else "",
            f"{DELIMITERS[self.delimiter]}s" if self.delimiter != "," else "",
        ]
        return ", ".join(part for part in parts if part)


OURS = Form()


def json_line(record: Record, *, ascii_only: bool = False) -> str:
    """One line of JSONL, with its end."""
    named = dict(zip(FIELDS, astuple(record), strict=True))
    return json.dumps(named, ensure_ascii=ascii_only) + "\n"


def csv_line(cells: Sequence[str], form: Form = OURS) -> str:
    """One record of CSV, with its end. Everything is quoted, so that line breaks in it stay."""
    out = io.StringIO()
    writer = csv.writer(
        out, lineterminator=form.end, quoting=csv.QUOTE_ALL, delimiter=form.delimiter
    )
    writer.writerow(cells)
    return out.getvalue()


def csv_record(record: Record, form: Form = OURS) -> str:
    """The same of a record, in the file's own order of columns; columns of others stay blank."""
    named = dict(zip(_NAMES, astuple(record), strict=True))
    return csv_line([named.get(name, "") for name in form.columns], form)


# --- reading ----------------------------------------------------------------------------------------


def form_of(data: bytes, *, is_csv: bool) -> Form:
    """The form of a file; ours where it holds nothing yet.

    Raises:
        Foreign: no header of ours is in it, or its encoding cannot hold every answer.
    """
    try:
        found = decode(data, cut=True)
    except BadRequest:  # one of ours with a broken line, or something else altogether
        return OURS
    if found.encoding not in ("utf-8", "utf-16-le", "utf-16-be", "gb18030"):
        raise Foreign(
            f"it is in {found.encoding.upper()}, which cannot hold every answer (save it as UTF-8)"
        )
    first = found.text.partition("\n")[0]
    end = "\r\n" if first.endswith("\r") else "\r" if "\r" in first else "\n"
    form = Form(found.encoding, found.mark, end)
    if not is_csv or not found.text.strip():
        return form
    sep = sep_line(found.text)
    skip = 1 if sep is not None else 0
    for delimiter in [sep] if sep is not None else DELIMITERS:
        dialect = Dialect(delimiter, skip=skip)
        _, cells = next(csv_records(found.text, dialect), (0, ""))
        names = tuple(map(plain_name, cells)) if isinstance(cells, list) else ()
        if all(names.count(name) == 1 for name in _NAMES):
            return Form(found.encoding, found.mark, end, delimiter, skip, names)
    return form


def read_json(data: bytes, form: Form = OURS) -> tuple[list[Record], int]:
    """The records of a JSONL file, and the size in bytes of its whole lines.

    Raises:
        Foreign: a line is not what :func:`json_line` writes, nor the beginning of it.
    """
    start, records, size = f'{{"{FIELDS[0]}": "', [], len(form.mark)
    for number, line in enumerate(io.StringIO(_text(data, form), newline="\n"), start=1):
        if not line.endswith("\n"):
            if line[: len(start)] != start[: len(line)]:
                raise Foreign(number)
            break
        if line.strip():
            try:
                value = json.loads(line)
                cells = [value[name] for name in FIELDS]
            except (ValueError, TypeError, KeyError, RecursionError):
                raise Foreign(number) from None
            records.append(_record(cells, number))
        size += len(line.encode(form.encoding, form.errors))
    return records, min(size, len(data))


def read_csv(data: bytes, form: Form = OURS) -> tuple[list[Record], int]:
    """The same for CSV, whose records may go over several lines."""
    text = _text(data, form)
    lines = list(io.StringIO(text, newline=""))
    found = list(csv_records(text, Dialect(form.delimiter, skip=form.skip)))
    records, end, places = [], len(lines), [form.columns.index(name) for name in _NAMES]
    for place, (number, cells) in enumerate(found):
        open_quote = isinstance(cells, str) and "unexpected end of data" in cells
        if open_quote or (place == len(found) - 1 and not text.endswith(("\n", "\r"))):
            end = number - 1
            break
        if not isinstance(cells, list) or len(cells) < len(form.columns):
            raise Foreign(number)
        cells = _with_lost_quotes(cells, form, number)
        if place == 0:
            if tuple(map(plain_name, cells)) != form.columns:
                raise Foreign(number)
        elif form == OURS or any(cells):  # spreadsheets end in rows of nothing but commas
            records.append(_record([cells[at] for at in places], number))
    if end == form.skip and not csv_line(FIELDS).startswith(text):
        raise Foreign(1)
    size = len("".join(lines[:end]).encode(form.encoding, form.errors))
    return records, min(len(form.mark) + size, len(data))


def _with_lost_quotes(cells: list[str], form: Form, number: int) -> list[str]:
    """The cells of a line whose quotes a program left out: a comma with a space after it
    is one within a text, for no writer of tables puts a space there.

    Raises:
        Foreign: there are still too many of them.
    """
    if len(cells) == len(form.columns):
        return cells
    joined: list[str] = []
    for cell in cells:
        if joined and cell.startswith(" "):
            joined[-1] += form.delimiter + cell
        else:
            joined.append(cell)
    if len(joined) != len(form.columns):
        raise Foreign(
            f"line {number} of it has {len(cells)} cells where {len(form.columns)} belong (a text "
            f"with a {DELIMITERS.get(form.delimiter, form.delimiter)} in it has lost its quotes)"
        )
    return joined


def _text(data: bytes, form: Form) -> str:
    """The text of a file that may end within a letter."""
    if form.errors == "surrogateescape":
        return data[len(form.mark) :].decode("utf-8", "surrogateescape")
    return decode(data, cut=True).text


def _record(cells: object, number: int) -> Record:
    good = isinstance(cells, list) and len(cells) == len(FIELDS)
    if not good or not all(isinstance(cell, str) for cell in cells):  # type: ignore[attr-defined]
        raise Foreign(number)
    return Record(*cells)  # type: ignore[misc]
