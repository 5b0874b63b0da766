"""Many questions: asked one by one, each answer kept at once, and continued after an interruption.

The file of answers grows by whole lines only. What a power cut or a full disk left of a line is
taken away when the same command goes on. Rows that failed are not in the file, so they are asked
again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tqdm import tqdm

from instructblip.errors import BadParameter, BadRequest, EngineStopped, InstructBlipError
from instructblip.rows import BadRow, Row, csv_records

try:
    import fcntl
except ImportError:  # no file locks there: one run at a time is the user's care
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the file of answers: what was asked, what was said, by which model and how."""

    img_path: str
    prompt: str
    answer: str
    model: str
    generation: str


FIELDS = tuple(field.name for field in fields(Record))


class Foreign(Exception):
    """A line that is no record of ours; its number is the argument."""


def json_line(record: Record) -> str:
    """One line of JSONL, with its end."""
    named = dict(zip(FIELDS, astuple(record), strict=True))
    return json.dumps(named, ensure_ascii=False) + "\n"


def csv_line(cells: Sequence[str]) -> str:
    """One record of CSV, with its end. Everything is quoted, so that line breaks in it stay."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
    return out.getvalue()


def read_json(data: bytes) -> tuple[list[Record], int]:
    """The records of a JSONL file, and the size in bytes of its whole lines.

    Raises:
        Foreign: a line is not what :func:`json_line` writes, nor the beginning of it.
    """
    start, records, size = f'{{"{FIELDS[0]}": "'.encode(), [], 0
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.endswith(b"\n"):
            if line[: len(start)] != start[: len(line)]:
                raise Foreign(number)
            break
        try:
            value = json.loads(line)
            cells = [value[name] for name in FIELDS]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Foreign(number) from None
        records.append(_record(cells, number))
        size += len(line)
    return records, size


def read_csv(data: bytes) -> tuple[list[Record], int]:
    """The same for CSV, whose records may go over several lines."""
    text = data.decode("utf-8", "surrogateescape")  # a line may end within a letter
    lines = list(io.StringIO(text, newline=""))
    found, records, end = list(csv_records(text)), [], len(lines)
    for place, (number, cells) in enumerate(found):
        open_quote = isinstance(cells, str) and "unexpected end of data" in cells
        if open_quote or (place == len(found) - 1 and not text.endswith("\n")):
            end = number - 1
            break
        if place == 0 and tuple(cells) != FIELDS:
            raise Foreign(number)
        if place > 0:
            records.append(_record(cells, number))
    if end == 0 and not csv_line(FIELDS).startswith(text):
        raise Foreign(1)
    return records, len("".join(lines[:end]).encode("utf-8", "surrogateescape"))


def _record(cells: object, number: int) -> Record:
    good = isinstance(cells, list) and len(cells) == len(FIELDS)
    if not good or not all(isinstance(cell, str) for cell in cells):  # type: ignore[attr-defined]
        raise Foreign(number)
    return Record(*cells)  # type: ignore[misc]


class Results:
    """A file of answers, opened for appending; a context manager.

    Attributes:
        done: how often each (picture, prompt) is answered in it.
        repaired: whether a line that was cut short was taken away.

    Raises:
        BadRequest: its name ends in something else than .jsonl, .ndjson or .csv, it cannot be
            opened, another run writes to it, or it holds something else than answers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._csv = self.path.suffix.lower() == ".csv"
        if not self._csv and self.path.suffix.lower() not in (".jsonl", ".ndjson"):
            raise self._refused("its name must end in .jsonl or .csv")
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._refused(f"it cannot be opened ({error.strerror})") from error
        try:
            self._lock()
            records = self._read()
        except BaseException:
            os.close(self._file)
            raise
        self.done = Counter((record.img_path, record.prompt) for record in records)
        self._made_by = {(record.model, record.generation) for record in records}

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        if os.fstat(self._file).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def require(self, model: str, generation: str) -> None:
        """Refuse to mix the answers of two models, or of two ways to generate.

        Raises:
            BadRequest: the file holds answers that were made otherwise.
        """
        for other in sorted(self._made_by - {(model, generation)}):
            raise self._refused(
                f"it holds answers of {other[0]} ({other[1]}), and these would be of {model} "
                f"({generation})"
            )

    def append(self, record: Record) -> None:
        """Add one answer, whole or not at all.

        Raises:
            InstructBlipError: the disk is full, or writing failed otherwise.
        """
        header = csv_line(FIELDS) if self._csv and not self._size else ""
        line = csv_line(astuple(record)) if self._csv else json_line(record)
        data, written = (header + line).encode("utf-8", "replace"), 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise InstructBlipError(
                f"An answer could not be written to {self.path} ({error.strerror}). The answers "
                "before it are kept. Make room and give the same command again.",
                code="write_failed",
            ) from error
        except BaseException:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise self._refused("it is no ordinary file")
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refused("another run is writing to it") from None
        except OSError:
            return  # a file system without locks

    def _read(self) -> list[Record]:
        with open(self._file, "rb", closefd=False) as file:
            data = file.read()
        try:
            records, self._size = (read_csv if self._csv else read_json)(data)
        except Foreign as error:
            raise self._refused(f"line {error} of it is no answer that infer wrote") from None
        self.repaired = self._size < len(data)
        if self.repaired:
            os.ftruncate(self._file, self._size)
        return records

    def _refused(self, why: str) -> BadRequest:
        return BadRequest(
            f"--out {self.path}: {why}. Choose another file, or move this one away.",
            code="out_refused",
        )


def not_done(rows: Sequence[Row | BadRow], done: Counter[tuple[str, str]]) -> list[Row | BadRow]:
    """The rows without those that are answered already; a row that occurs twice counts twice."""
    left, rest = Counter(done), []
    for row in rows:
        key = (row.img_path, row.prompt) if isinstance(row, Row) else None
        if key is not None and left[key] > 0:
            left[key] -= 1
        else:
            rest.append(row)
    return rest


def ask_all(
    rows: Sequence[Row],
    ask: Callable[[Row], str],
    keep: Callable[[Row, str], None],
    *,
    bar: bool = True,
) -> int:
    """Ask row after row, and hand each answer to ``keep`` at once.

    A row that fails is reported on stderr by its line, and the rest goes on. ``bar``: show the
    progress where stderr is a terminal.

    Returns:
        the number of rows that failed.

    Raises:
        BadParameter, EngineStopped: what would fail each row the same way.
    """
    failed = 0
    hidden = None if bar else True
    with tqdm(total=len(rows), unit="row", disable=hidden, file=sys.stderr) as progress:
        for row in rows:
            try:
                answer = ask(row)
            except (BadParameter, EngineStopped):
                raise
            except InstructBlipError as error:
                progress.write(f"error: {row.origin}: {error}", file=sys.stderr)
                failed += 1
            else:
                keep(row, answer)
            progress.update()
    return failed
