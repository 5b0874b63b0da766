"""Many pictures: folders and lists, bad rows, and a file of answers that any interruption leaves whole."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructblip.batch import (
    FIELDS,
    Record,
    Results,
    csv_line,
    json_line,
    not_done,
    read_csv,
    read_json,
)
from instructblip.cli import main
from instructblip.errors import BadRequest, EngineStopped, InstructBlipError
from instructblip.rows import BadRow, Row, read_rows
from tests.tiny import picture

ROOT = Path(__file__).resolve().parents[2]
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (9, 90, 190)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures, and things in it that are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in zip(("b.png", "a.PNG", "c.jpg", "猫.webp"), COLOURS, strict=True):
        (folder / name).write_bytes(picture(colour))
    (folder / "notes.txt").write_text("x")
    (folder / "._a.png").write_text("a file of macOS")
    (folder / "inner.png").mkdir()
    return folder


@pytest.fixture
def infer(tiny_folder: Path) -> Callable[..., int]:
    """``infer`` on the tiny model."""
    return lambda *flags: main(["infer", "--model", str(tiny_folder), *map(str, flags)])


def saved(path: Path) -> list[dict[str, str]]:
    """The answers in a file, as a reader of JSONL or CSV finds them."""
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return [json.loads(line) for line in text.splitlines()]


def good(rows: list[Row | BadRow]) -> list[tuple[str, str]]:
    return [(Path(r.img_path).name, r.prompt) for r in rows if isinstance(r, Row)]


def bad(rows: list[Row | BadRow]) -> dict[int, str]:
    """Line → reason."""
    return {int(r.origin.split()[-1]): r.reason for r in rows if isinstance(r, BadRow)}


@contextmanager
def suppress_empty() -> Iterator[None]:
    """A list of which nothing can be asked is refused as a whole; nothing else is."""
    try:
        yield
    except BadRequest as error:
        if not error.code.startswith("list_"):
            raise


# --- rows ------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_pictures(pictures: Path) -> None:
    rows = read_rows([str(pictures)], "what")
    assert not bad(rows)
    assert good(rows) == [
        ("a.PNG", "what"),
        ("b.png", "what"),
        ("c.jpg", "what"),
        ("猫.webp", "what"),
    ]


def test_several_sources_keep_their_order(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"img_path": "pictures/c.jpg", "prompt": "own"}\n')
    names = [str(pictures / "b.png"), str(tmp_path / "x.jsonl"), str(pictures / "a.PNG")]
    rows = read_rows(names, "what")
    assert good(rows) == [("b.png", "what"), ("c.jpg", "own"), ("a.PNG", "what")]
    assert all(isinstance(r, Row) and Path(r.img_path).exists() for r in rows)


@pytest.mark.parametrize(
    "header", ["img_path,prompt\n", "Picture,Question\n", "\ufeffimage,prompt\n", ""]
)
def test_a_list_with_and_without_a_header(pictures: Path, header: str) -> None:
    text = header + 'a.PNG,what is it\n\n"b.png","one, two ""three""\nfour"\nc.jpg,\n'
    (pictures / "list.csv").write_text(text, "utf-8")
    rows = read_rows([str(pictures / "list.csv")], "else")
    assert good(rows) == [
        ("a.PNG", "what is it"), ("b.png", 'one, two "three"\nfour'), ("c.jpg", "else"),
    ]  # fmt: skip
    assert Path(rows[0].img_path).exists()  # type: ignore[union-attr]  # as seen from the list


def test_more_columns_in_any_order(pictures: Path) -> None:
    (pictures / "list.csv").write_text("id,prompt,img_path,note\n1,what,a.PNG,x\n2,why,b.png\n")
    rows = read_rows([str(pictures / "list.csv")], None)
    assert good(rows) == [("a.PNG", "what"), ("b.png", "why")]


def test_bad_rows_of_csv_are_named_by_line_and_the_rest_stays(pictures: Path) -> None:
    rows = b"""img_path,prompt
a.PNG,what
a.PNG,what, then why
b.png,"never closed
c.jpg,how
,no picture
a.PNG,
\xc3\xa8.png,fine
a.PNG,\xc4\xe3
a.PNG,"two
lines"
b.png,last
"""
    (pictures / "list.csv").write_bytes(rows)
    found = read_rows([str(pictures / "list.csv")], None)
    assert good(found) == [
        ("a.PNG", "what"), ("c.jpg", "how"), ("è.png", "fine"), ("a.PNG", "two\nlines"),
        ("b.png", "last"),
    ]  # fmt: skip
    reasons = bad(found)
    assert sorted(reasons) == [3, 4, 6, 7, 9]
    assert "3 cells where 2 belong" in reasons[3]
    assert "not CSV" in reasons[4]
    assert "no picture" in reasons[6]
    assert "prompt" in reasons[7]
    assert "UTF-8" in reasons[9]


def test_bad_rows_of_jsonl_are_named_by_line_and_the_rest_stays(pictures: Path) -> None:
    rows = [
        b'{"img_path": "a.PNG", "prompt": "what"}', b"", b'{"img_path": "a.PNG"', b"[1, 2]",
        b'{"prompt": "what"}', b'{"img_path": "a.PNG"}', b'{"img_path": 3, "prompt": "x"}',
        b'{"img_path": "a.PNG", "prompt": " "}', b'{"img_path": "a\\u0000", "prompt": "x"}',
        b'{"img_path": "a.PNG", "prompt": "\\ud800"}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}",
        b'{"image": "b.png", "question": "why"}',
    ]  # fmt: skip
    (pictures / "list.jsonl").write_bytes(b"\r\n".join(rows))
    found = read_rows([str(pictures / "list.jsonl")], None)
    assert good(found) == [("a.PNG", "what"), ("b.png", "why")]
    assert sorted(bad(found)) == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_a_list_without_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(BadRequest, match="holds no rows"):
        read_rows([str(tmp_path / name)], "x")


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["csv", "jsonl"]))
def test_any_bytes_are_a_list_of_good_and_bad_rows(
    tmp_path_factory, data: bytes, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(data)
    rows: list[Row | BadRow] = []
    with suppress_empty():
        rows = read_rows([str(path)], None)
    for row in rows:
        assert "line " in row.origin
        if isinstance(row, Row):
            assert row.prompt.strip()
            (row.img_path + row.prompt).encode()


@settings(deadline=None)
@given(st.lists(st.tuples(st.text('ab,"\n\r 猫', min_size=1), st.text('ab,"\n\r 猫', min_size=1))))
def test_what_csv_writers_write_is_read_back(
    tmp_path_factory, pairs: list[tuple[str, str]]
) -> None:
    pairs = [(p, q) for p, q in pairs if p.strip() and q.strip()]
    path = tmp_path_factory.getbasetemp() / "back.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("img_path", "prompt"), *pairs])
    if pairs:
        rows = read_rows([str(path)], None)
        assert [(r.img_path, r.prompt) for r in rows] == [  # type: ignore[union-attr]
            (str(path.parent / p), "\n".join(q.replace("\r\n", "\n").split("\r"))) for p, q in pairs
        ]


# --- the file of answers ----------------------------------------------------------------------------


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
RECORDS = st.lists(st.builds(Record, WORDS, WORDS, WORDS, WORDS, WORDS), max_size=4)
FORMS = {
    "jsonl": (lambda r: "".join(map(json_line, r)), read_json),
    "csv": (
        lambda r: "".join([csv_line(FIELDS), *(csv_line([getattr(x, f) for f in FIELDS]) for x in r)]),
        read_csv,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None)
@given(records=RECORDS, cut=st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_its_whole_records(
    form: str, records: list[Record], cut: int
) -> None:
    write, read = FORMS[form]
    data = write(records).encode()
    part = data[: max(len(data) - cut, 0)]
    found, size = read(part)
    assert found == records[: len(found)]
    assert size <= len(part)
    ends = [len(write(records[:n]).encode()) for n in range(len(records) + 1)]
    fits = [n for n, end in enumerate(ends) if end <= len(part)]
    assert len(found) == (fits[-1] if fits else 0)
    assert size == (ends[fits[-1]] if fits else 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", '{"mine": 1}\n'), ("x.jsonl", "my only line"), ("x.jsonl", "[]\n"),
        ("x.jsonl", '{"img_path": 1, "prompt": "", "answer": "", "model": "", "generation": ""}\n'),
        ("x.jsonl", "[" * 100_000 + "\n"),
        ("x.csv", "name,mark\na,1\n"), ("x.csv", "my only line"), ("x.csv", '"open\n'),
        ("x.csv", csv_line(FIELDS) + "a,b\n"), ("x.csv", csv_line(FIELDS) + 'a"b"c",d"e\n"x"y\n'),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadRequest, match="no answer that infer wrote"):
        Results(tmp_path / name)
    assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize("name", ["answers.txt", "no/such/folder/x.csv", "folder.csv", "answers"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadRequest, match="--out"):
        Results(tmp_path / name)


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    with Results(tmp_path / "x.csv"), pytest.raises(BadRequest, match="another run"):
        Results(tmp_path / "x.csv")
    with Results(tmp_path / "x.csv"):
        pass
    assert not (tmp_path / "x.csv").exists()  # nothing was answered


def test_a_full_disk_keeps_the_answers_before(tmp_path: Path) -> None:
    record = Record("a", "b", "c" * 1000, "m", "g")
    limit = len(json_line(record)) * 2 + 300
    with Results(tmp_path / "x.jsonl") as results:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            results.append(record)
            results.append(record)
            with pytest.raises(InstructBlipError, match="could not be written"):
                results.append(record)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        results.append(record)  # there is room again
    assert len(saved(tmp_path / "x.jsonl")) == 3


def test_ctrl_c_within_a_write_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, write = Record("a", "b", "c", "m", "g"), os.write

    def slow(file: int, data: bytes) -> int:
        write(file, data[:7])
        raise KeyboardInterrupt

    with Results(tmp_path / "x.csv") as results:
        results.append(record)
        monkeypatch.setattr("os.write", slow)
        with pytest.raises(KeyboardInterrupt):
            results.append(record)
        monkeypatch.undo()
    assert len(saved(tmp_path / "x.csv")) == 1
    with Results(tmp_path / "x.csv") as results:
        assert not results.repaired


def test_rows_that_occur_twice_are_answered_twice() -> None:
    rows: list[Row | BadRow] = [Row("a", "b", "1"), BadRow("2", "no"), Row("a", "b", "3")]
    assert not_done(rows, Counter({("a", "b"): 1})) == rows[1:]
    assert not_done(rows, Counter({("a", "b"): 2, ("x", "y"): 1})) == [rows[1]]


# --- all of it ---------------------------------------------------------------------------------------


def test_several_pictures_each_with_its_answer(
    pictures: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [pictures / "b.png", pictures / "c.jpg"]
    assert infer("--img_path", *names, "--prompt", "what is it") == 0
    shown = capsys.readouterr().out.splitlines()
    answers = []
    for name in names:
        assert infer("--img_path", name, "--prompt", "what is it") == 0
        answers.append(capsys.readouterr().out.removesuffix("\n"))
    single = [" ".join(answer.splitlines()) for answer in answers]
    assert shown == [f"{name}: {answer}" for name, answer in zip(names, single, strict=True)]
    assert (
        infer("--img_path", names[0], "--img_path", names[1], "--prompt", "what is it", "--json")
        == 0
    )
    assert [json.loads(line)["answer"] for line in capsys.readouterr().out.splitlines()] == answers


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_answers_to_a_folder_and_the_same_again(
    pictures: Path,
    infer: Callable[..., int],
    tmp_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"answers.{kind}"
    call = ("--img_path", pictures, "--prompt", "what is it", "--out", out)
    assert infer(*call) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"4 of 4 answers are in {out}.\n"
    found = saved(out)
    assert [Path(row["img_path"]).name for row in found] == ["a.PNG", "b.png", "c.jpg", "猫.webp"]
    assert all(row["answer"] and row["model"] == "tiny" for row in found)
    before = out.read_bytes()
    assert infer(*call, "--device", "cpu") == 0
    assert out.read_bytes() == before
    assert "4 of 4 answers are in" in capsys.readouterr().err
    # The answers of other settings do not go into the same file.
    (pictures / "new.png").write_bytes(picture())
    assert infer(*call, "--max_new_tokens", "3") == 2
    assert "it holds answers of tiny (engine max_new_tokens=8)" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert infer(*call) == 0
    assert len(saved(out)) == 5
    assert out.read_bytes().startswith(before)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_that_was_cut_short_goes_on_as_if_nothing_was(
    pictures: Path,
    infer: Callable[..., int],
    tmp_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"answers.{kind}"
    call = ("--img_path", pictures, "--prompt", "what is it", "--out", out)
    assert infer(*call) == 0
    whole = out.read_bytes()
    for cut in (1, 30, len(whole) // 2, len(whole) - 5):
        out.write_bytes(whole[:-cut])
        capsys.readouterr()
        assert infer(*call) == 0
        assert "cut short" in capsys.readouterr().err
        assert out.read_bytes() == whole


def test_bad_rows_are_told_and_the_rest_is_answered(
    pictures: Path, infer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, out = pictures / "list.csv", tmp_path / "out.jsonl"
    (pictures / "broken.png").write_bytes(picture()[:90])
    long = "what is it " * 300
    listed.write_text(
        f"img_path,prompt\na.PNG,what\nnowhere.png,what\nbroken.png,what\nb.png,{long}\nb.png,\n"
        "notes.txt,what\nc.jpg,how many\n"
    )
    assert infer("--img_path", listed, "--out", out) == 1
    error = capsys.readouterr().err.splitlines()
    told = [line for line in error if line.startswith(f"error: {listed}, line ")]
    assert sorted(int(line.split("line ")[1].split(":")[0]) for line in told) == [3, 4, 5, 6, 7]
    assert error[-1] == ("error: 5 of 7 rows failed (see above). The same command asks them again.")
    assert [row["prompt"] for row in saved(out)] == ["what", "how many"]
    # What failed is asked again, and nothing else.
    (pictures / "nowhere.png").write_bytes(picture())
    assert infer("--img_path", listed, "--out", out) == 1
    assert [Path(r["img_path"]).name for r in saved(out)] == ["a.PNG", "c.jpg", "nowhere.png"]


def test_only_bad_rows_need_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.jsonl").write_text("nonsense\n")
    call = ["infer", "--img_path", str(tmp_path / "x.jsonl"), "--model", "no/such/folder"]
    assert main(call) == 1
    error = capsys.readouterr().err.splitlines()
    assert "x.jsonl, line 1: not JSON" in error[0]
    assert error[1] == "error: 1 of 1 rows failed (see above)."


def test_what_is_asked_about_is_never_written_to(
    pictures: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = pictures / "list.jsonl"
    listed.write_text("")
    listed.write_text('{"img_path": "a.PNG", "prompt": "what"}\n')
    assert infer("--img_path", listed, "--out", pictures / ".." / "pictures" / "list.jsonl") == 2
    assert "which is asked about" in capsys.readouterr().err
    assert listed.read_text() == '{"img_path": "a.PNG", "prompt": "what"}\n'


def test_a_model_that_does_not_load_leaves_no_file(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    call = ["infer", "--img_path", str(pictures), "--prompt", "x", "--out", str(out)]
    assert main([*call, "--model", "no/such/folder"]) == 2
    assert not out.exists()


def test_an_engine_that_died_ends_the_run(
    pictures: Path,
    infer: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def dead(*_: object) -> None:
        raise EngineStopped("The engine has died. Start again.")

    monkeypatch.setattr("instructblip.engine.local.LocalEngine.submit", dead)
    assert infer("--img_path", pictures, "--prompt", "what") == 1
    assert capsys.readouterr().err == "error: The engine has died. Start again.\n"


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_is_usable_and_goes_on(
    pictures: Path, tiny_folder: Path, tmp_path: Path, signal_: signal.Signals
) -> None:
    listed, out = tmp_path / "list.jsonl", tmp_path / "out.csv"
    os.mkfifo(pictures / "waits.png")  # whoever reads it waits for somebody who writes
    rows = [
        json.dumps(
            {"img_path": f"pictures/{'waits' if n == 7 else 'b'}.png", "prompt": f"what is it {n}"}
        )
        for n in range(20)
    ]
    listed.write_text("\n".join(rows))
    command = [
        sys.executable, "-m", "instructblip", "infer", "--img_path", str(listed), "--out", str(out),
        "--model", str(tiny_folder), "--device", "cpu",
    ]  # fmt: skip
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        while not (out.exists() and "what is it 6" in out.read_text("utf-8")):
            assert running.poll() is None
            time.sleep(0.01)
    finally:
        running.send_signal(signal_)
    _, error = running.communicate(timeout=120)
    some = saved(out)
    assert len(some) == 7
    if signal_ == signal.SIGINT:
        assert running.returncode == 1
        assert error == (
            f"error: stopped by Ctrl-C. What was answered is in {out}; "
            "the same command goes on from there.\n"
        )
    (pictures / "waits.png").unlink()
    (pictures / "waits.png").write_bytes(picture())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"7 of 20 answers are in {out} already" in done.stderr
    assert [row["prompt"] for row in saved(out)] == [f"what is it {n}" for n in range(20)]
    assert saved(out)[: len(some)] == some


def test_a_progress_bar_on_a_terminal(pictures: Path, tiny_folder: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [
        sys.executable, "-m", "instructblip", "infer", "--img_path", str(pictures), "--prompt", "x",
        "--model", str(tiny_folder), "--device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=120
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.returncode == 0
    assert "4/4" in shown.decode()
    assert len(done.stdout.splitlines()) == 4
