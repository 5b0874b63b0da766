"""Files of answers that another program saved: read, and gone on with in the same form, or refused in words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructblip.answers import FIELDS, Record, csv_line, form_of, read_csv
from instructblip.batch import Results
from instructblip.cli import main
from instructblip.errors import BadRequest
from tests.tiny import picture

RECORDS = [
    Record("p/a.png", "What, or\nwhy?", 'A "key"; and\tmore.', "tiny", "engine max_new_tokens=8"),
    Record("p/猫.png", "图里有什么？", "一把钥匙。", "tiny", "engine max_new_tokens=8"),
]
NEXT = Record("p/c.png", 'And, "this"?', "苹果\n两个", "tiny", "engine max_new_tokens=8")

# What spreadsheets and editors make of a file: encoding, delimiter, line ends, quoting.
SAVED = {
    "Excel, CSV UTF-8": ("utf-8-sig", ",", "\r\n", csv.QUOTE_MINIMAL),
    "Excel, CSV UTF-8, German": ("utf-8-sig", ";", "\r\n", csv.QUOTE_MINIMAL),
    "Excel, Unicode text": ("utf-16", "\t", "\r\n", csv.QUOTE_MINIMAL),
    "Excel, CSV, Chinese": ("gb18030", ",", "\r\n", csv.QUOTE_MINIMAL),
    "Excel, CSV, on an old Mac": ("gb18030", ",", "\r", csv.QUOTE_MINIMAL),
    "LibreOffice": ("utf-8", ",", "\n", csv.QUOTE_MINIMAL),
    "LibreOffice, tabs": ("utf-8", "\t", "\n", csv.QUOTE_NONNUMERIC),
    "an editor": ("utf-8", ",", "\r\n", csv.QUOTE_ALL),
    "UTF-16 of others": ("utf-16-be", ";", "\r\n", csv.QUOTE_ALL),
}


def as_saved(rows: list[list[str]], how: str) -> bytes:
    encoding, delimiter, end, quoting = SAVED[how]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows(rows)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    return (mark + out.getvalue()).encode(encoding)


def cells(record: Record) -> list[str]:
    return [getattr(record, name) for name in FIELDS]


def as_read(path: Path, how: str, skip: int = 0) -> list[list[str]]:
    """All rows as the program that saved the file reads them."""
    encoding, delimiter, *_ = SAVED[how]
    text = path.read_bytes().decode(encoding).removeprefix("\ufeff")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[skip:]


@pytest.mark.parametrize("how", SAVED)
def test_a_file_that_another_program_saved_goes_on_in_its_form(tmp_path: Path, how: str) -> None:
    path, rows = tmp_path / "answers.csv", [list(FIELDS), *map(cells, RECORDS)]
    before = as_saved(rows, how)
    path.write_bytes(before)
    with Results(path) as results:
        assert results.done == {(r.img_path, r.prompt): 1 for r in RECORDS}
        assert not results.repaired
        results.require("tiny", "engine max_new_tokens=8")
        results.append(NEXT)
        results.append(NEXT)
    assert path.read_bytes().startswith(before)
    assert as_read(path, how) == [*rows, cells(NEXT), cells(NEXT)]
    with Results(path) as results:
        assert results.done[(NEXT.img_path, NEXT.prompt)] == 2


def test_line_ends_that_an_editor_changed_within_a_cell(tmp_path: Path) -> None:
    text = "".join(csv_line(row) for row in [list(FIELDS), *map(cells, RECORDS)])
    (tmp_path / "x.csv").write_bytes(text.replace("\n", "\r\n").encode())
    with Results(tmp_path / "x.csv") as results:
        assert results.done == {(r.img_path, r.prompt): 1 for r in RECORDS}


@pytest.mark.parametrize("how", SAVED)
def test_the_users_own_columns_stay(tmp_path: Path, how: str) -> None:
    """A mark beside each answer, columns moved, blank rows below, and Excel's line at the top."""
    order = [*reversed(FIELDS), "Mark"]
    rows = [order, *([*reversed(cells(r)), "good"] for r in RECORDS), [""] * 6]
    path = tmp_path / "answers.csv"
    path.write_bytes(as_saved(rows, how))
    with Results(path) as results:
        assert results.done == {(r.img_path, r.prompt): 1 for r in RECORDS}
        results.append(NEXT)
    assert as_read(path, how) == [*rows, [*reversed(cells(NEXT)), ""]]
    encoding, delimiter, end, _ = SAVED[how]
    if encoding == "utf-8":
        path.write_bytes(f"sep={delimiter}{end}".encode() + as_saved(rows, how))
        with Results(path) as results:
            assert results.done == {(r.img_path, r.prompt): 1 for r in RECORDS}
            results.append(NEXT)
        assert as_read(path, how, skip=1) == [*rows, [*reversed(cells(NEXT)), ""]]


def test_a_comma_whose_quotes_were_lost(tmp_path: Path) -> None:
    """Saved with a mark, and without any quotes."""
    record = Record("/p 1.png", "What is it?", "A key, an orange star, and a cat.", "m", "g")
    lines = [",".join(FIELDS), ",".join(cells(record))]
    (tmp_path / "x.csv").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    data = (tmp_path / "x.csv").read_bytes()
    assert read_csv(data, form_of(data, is_csv=True)) == ([record], len(data))
    with Results(tmp_path / "x.csv") as results:
        assert results.done == {(record.img_path, record.prompt): 1}
        results.append(NEXT)
    with Results(tmp_path / "x.csv") as results:
        assert results.done[(NEXT.img_path, NEXT.prompt)] == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_a_jsonl_file_that_an_editor_saved(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [
        json.dumps(dict(zip(FIELDS, cells(r), strict=True)), ensure_ascii=False) for r in RECORDS
    ]
    path.write_bytes(("\r\n".join(lines) + "\r\n\r\n").encode(encoding))
    with Results(path) as results:
        assert results.done == {(r.img_path, r.prompt): 1 for r in RECORDS}
        results.append(NEXT)
    text = path.read_bytes().decode(encoding)
    found = [json.loads(line) for line in text.splitlines() if line.strip()]
    assert [list(each.values()) for each in found] == [*map(cells, RECORDS), cells(NEXT)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (csv_line(FIELDS).encode() + 'a.png,"Größe?",é,m,g\n'.encode("cp1252"), "it is in CP1252"),
        (b"PK\x03\x04" + bytes(60), "line 1 of it is no answer"),
        (b"img_path;prompt;answer\r\na;b;c\r\n", "line 1 of it is no answer"),
        ("\ufeffmine;yours\r\n1;2\r\n".encode(), "line 1 of it is no answer"),
        (csv_line(FIELDS).encode() + b"a,b,c,d\n", "line 2 of it is no answer"),
        (csv_line(FIELDS).encode() + b"a,b,c,d,e,f\n", "line 2 of it has 6 cells where 5 belong"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_refused_in_words_and_left_alone(
    tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(BadRequest, match=words) as caught:
        Results(tmp_path / "x.csv")
    assert caught.value.code == "out_refused"
    assert (tmp_path / "x.csv").read_bytes() == data


def test_a_file_with_nothing_but_a_mark_gets_its_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf")
    with Results(path) as results:
        results.append(NEXT)
    assert as_read(path, "Excel, CSV UTF-8") == [list(FIELDS), cells(NEXT)]


@settings(deadline=None, max_examples=60)
@given(how=st.sampled_from(sorted(SAVED)), cut=st.integers(0, 300))
def test_a_saved_file_cut_anywhere_keeps_its_whole_records(how: str, cut: int) -> None:
    data = as_saved([list(FIELDS), *map(cells, RECORDS)], how)
    header = len(as_saved([list(FIELDS)], how))
    part = data[: max(len(data) - cut, header)]
    records, size = read_csv(part, form_of(part, is_csv=True))
    assert records == RECORDS[: len(records)]
    assert size <= len(part)
    # What is left of it is whole: it reads the same, to its end.
    rest = part[:size]
    assert read_csv(rest, form_of(rest, is_csv=True)) == (records, size)


def test_infer_goes_on_with_what_excel_saved(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answered, opened and saved by Excel, and the same command again: nothing is asked twice."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "list.csv").write_bytes("\ufeffimg_path;prompt\r\na.png;图里有什么？\r\nb.png;what,\r\n".encode())  # fmt: skip
    out = tmp_path / "out.csv"
    call = ["infer", "--model", str(tiny_folder), "--img_path", str(tmp_path / "list.csv"), "--out"]
    assert main([*call, str(out)]) == 0
    rows = list(csv.reader(io.StringIO(out.read_text("utf-8"), newline="")))
    saved: Callable[[str], bytes] = lambda how: as_saved(rows, how)  # noqa: E731
    for how, told in (
        ("Excel, CSV UTF-8", "a byte order mark"),
        ("Excel, Unicode text", "UTF-16-LE, a byte order mark, tabs"),
    ):
        out.write_bytes(saved(how))
        capsys.readouterr()
        assert main([*call, str(out)]) == 0
        error = capsys.readouterr().err
        assert f"{out} was saved by another program ({told}); it goes on so." in error
        assert "2 of 2 answers are in" in error
        assert out.read_bytes() == saved(how)
