"""Many questions: asked one by one, each answer kept at once, and continued after an interruption.

The file of answers grows by whole lines only. What a power cut or a full disk left of a line is
taken away when the same command goes on. Rows that failed are not in the file, so they are asked
again.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from instructblip.answers import (
    FIELDS,
    OURS,
    Foreign,
    Record,
    csv_line,
    csv_record,
    form_of,
    json_line,
    read_csv,
    read_json,
)
from instructblip.errors import BadParameter, BadRequest, EngineStopped, InstructBlipError
from instructblip.rows import BadRow, Row
from instructblip.texts import checked

try:
    import fcntl
except ImportError:  # no file locks there: one run at a time is the user's care
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FIELDS", "Record", "Results", "ask_all", "csv_line", "json_line", "not_done", "read_csv",
    "read_json",
]  # fmt: skip


class Results:
    """A file of answers, opened for appending; a context manager.

    Attributes:
        done: how often each (picture, prompt) is answered in it.
        repaired: whether a line that was cut short was taken away.
        form: how it is written, which is not ours where another program saved it.

    Raises:
        BadRequest: its name ends in something else than .jsonl, .ndjson or .csv, it cannot be
            opened, another run writes to it, or it holds something else than answers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.expanduser(path))
        self.form = OURS
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
        self.done = Counter((record.img_path, _as_asked(record.prompt)) for record in records)
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
        empty = self._size <= len(self.form.mark)
        header = csv_line(FIELDS, self.form) if self._csv and empty else ""
        line = csv_record(record, self.form) if self._csv else json_line(record)
        data, written = (header + line).encode(self.form.encoding, "replace"), 0
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
            self.form = form_of(data, is_csv=self._csv)
            records, self._size = (read_csv if self._csv else read_json)(data, self.form)
        except Foreign as error:
            raise self._refused(str(error)) from None
        self.repaired = self._size < len(data)
        if self.repaired:
            os.ftruncate(self._file, self._size)
        return records

    def _refused(self, why: str) -> BadRequest:
        return BadRequest(
            f"--out {self.path}: {why}. Choose another file, or move this one away.",
            code="out_refused",
        )


def _as_asked(prompt: str) -> str:
    """A kept prompt as a row has it: an editor may have changed the line ends within it."""
    try:
        return checked(prompt)
    except BadRequest:  # of an earlier version, which took any length
        return prompt


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
