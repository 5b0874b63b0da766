"""Tables in text: CSV as people and their programs write it, and JSON objects one after the other.

Both give records with the line that each starts at, or what is wrong with that line; a fault spoils
its own line, and reading goes on at the next.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

# What programs put between cells, and the two full-width marks that a Chinese keyboard gives.
DELIMITERS = {
    ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", "，": "full-width comma",
    "；": "full-width semicolon",
}  # fmt: skip
_SEP = re.compile(r'\s*"?sep=(.)"?\s*\Z', re.IGNORECASE)  # Excel's own line before the table
_AFTER = re.compile(r"[ \t\r]*(.?)", re.DOTALL)
_SAMPLE = 20  # records that are looked at to tell a dialect
_HEAD = 100_000  # characters that they are looked for in
_DECODER = json.JSONDecoder()
csv.field_size_limit(2**20)  # a text that is too long is called that, not a fault of the CSV


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV text is written.

    Attributes:
        delimiter: between cells; one character.
        quote: around cells that hold it.
        skip: lines before the first record.
        lenient: whether spaces after a delimiter are left out and stray quotes are letters.
    """

    delimiter: str = ","
    quote: str = '"'
    skip: int = 0
    lenient: bool = False

    def options(self) -> dict[str, Any]:
        """Arguments of :func:`csv.reader`."""
        return {
            "delimiter": self.delimiter, "quotechar": self.quote, "strict": True,
            "skipinitialspace": self.lenient,
        }  # fmt: skip


PLAIN = Dialect()


def sep_line(text: str) -> str | None:
    """The delimiter that a first line ``sep=;`` names, as Excel writes and reads it."""
    found = _SEP.match(text.lstrip("\r\n").partition("\n")[0].rstrip("\r"))
    return found[1] if found else None


def find_dialect(
    text: str,
    is_name: Callable[[str], bool],
    is_picture: Callable[[str], int],
    default: str = ",",
) -> Dialect:
    """The dialect in which most is understood: a header's names, then cells that are pictures, then
    rows of the same number of cells.

    :class:`csv.Sniffer` counts characters alone, and takes a letter for the delimiter of a list of
    short questions.

    Args:
        text: the table.
        is_name: whether a cell is a column's known name.
        is_picture: how surely a cell names a picture; 0 where it does not.
        default: the delimiter where nothing tells.
    """
    delimiter = sep_line(text)
    if delimiter is not None:
        return Dialect(delimiter, skip=1, lenient=True)
    order = dict.fromkeys((default, *DELIMITERS))
    head = text[:_HEAD]
    quotes = ('"',) if '"' in head else ('"', "'")
    tried = [Dialect(d, quote, lenient=True) for quote in quotes for d in order]

    def understood(dialect: Dialect) -> tuple[int, int, bool]:
        found = [cells for _, cells in islice(csv_records(head, dialect), _SAMPLE)]
        rows = [cells for cells in found if isinstance(cells, list)]
        names = sum(map(is_name, rows[0])) if rows and found[0] is rows[0] else 0
        pictures = sum(max(map(is_picture, cells)) for cells in rows if len(cells) > 1)
        widths = {len(cells) for cells in rows}
        return names, pictures, len(widths) == 1 and widths != {1} and len(rows) == len(found)

    return max(tried, key=understood)  # the first of equals


def csv_records(text: str, dialect: Dialect = PLAIN) -> Iterator[tuple[int, list[str] | str]]:
    """Records with the line each starts at, or what is wrong with it; blank lines are left out.

    A quote that is never closed spoils its own line: reading goes on at the next.
    """
    lines = list(io.StringIO(text, newline=""))
    at = dialect.skip + _blank_before(lines) if dialect.skip else 0
    while at < len(lines):
        reader = csv.reader((lines[i] for i in range(at, len(lines))), **dialect.options())
        try:
            cells = next(reader)
        except csv.Error as error:
            stray = _with_stray_quotes(lines[at], dialect) if dialect.lenient else None
            yield at + 1, f"not CSV ({error})." if stray is None else stray
            at += 1
            continue
        if cells:
            yield at + 1, cells
        at += reader.line_num


def _blank_before(lines: list[str]) -> int:
    return next((n for n, line in enumerate(lines) if line.strip()), 0)


def _with_stray_quotes(line: str, dialect: Dialect) -> list[str] | None:
    """The cells of a line with quotes as other programs have them: ``\\"``, or as plain letters.

    An odd number of them is one that was never closed, which is a fault.
    """
    if line.count(dialect.quote) % 2:
        return None
    doubled = line.replace(f"\\{dialect.quote}", 2 * dialect.quote)
    plain = {**dialect.options(), "quoting": csv.QUOTE_NONE}
    for words, options in ((doubled, dialect.options()), (line, plain)):
        try:
            return next(csv.reader([words.rstrip("\r\n")], **options))
        except csv.Error:
            continue
    return None


def json_records(text: str) -> Iterator[tuple[int, Any]]:
    """JSON values with the line each starts at; a text is what is wrong with that line.

    One object a line (JSONL), an array of them, or objects over several lines.
    """
    at, line, counted, in_array = 0, 1, 0, False
    while True:
        at, in_array = _next_value(text, at, in_array)
        if at >= len(text):
            return
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = _DECODER.raw_decode(text, at)
            after = _after_spaces(text, end)
            if after not in ("", ",", "]", "\n"):
                raise json.JSONDecodeError("Extra data", text, end)
        except json.JSONDecodeError as error:
            yield (
                line,
                f"not JSON ({error.msg}: column {error.pos - _line_start(text, error.pos)}).",
            )
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON ({error})."
        else:
            good = isinstance(value, dict)
            yield line, value if good else 'not a JSON object as {"img_path": …, "prompt": …}.'
            at = end
            continue
        at = _line_end(text, at)


def _next_value(text: str, at: int, in_array: bool) -> tuple[int, bool]:
    """Where the next value begins: past spaces, commas and one array's brackets."""
    while at < len(text):
        letter = text[at]
        if letter == "[" and not in_array:
            in_array = True
        elif letter == "]":
            in_array = False
        elif not letter.isspace() and letter != ",":
            break
        at += 1
    return at, in_array


def _after_spaces(text: str, at: int) -> str:
    found = _AFTER.match(text, at)
    return found[1] if found else ""


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at)
