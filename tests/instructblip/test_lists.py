"""Lists as people and their programs write them: the same pairs, whatever the dialect; or words."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructblip.cli import main
from instructblip.columns import PICTURE_KEYS, PROMPT_KEYS
from instructblip.errors import BadRequest
from instructblip.rows import BadRow, Row, read_rows
from tests.tiny import picture

PAIRS = [
    ("a.png", "What is in the picture?"),
    ("two words.jpg", "图里有什么，左边是什么颜色？"),
    ("inner/c.png", 'Read "STOP"; then, say why | or not'),
    ("猫.webp", "Two\nlines, 两行"),
]
ENCODINGS = {
    "utf-8": "utf-8", "utf-8-sig": "utf-8-sig", "utf-16 of Excel": "utf-16",
    "utf-16 of others": "utf-16-be", "utf-16 without a mark": "utf-16-le", "gbk": "gbk",
    "gb18030": "gb18030",
}  # fmt: skip
HEADERS = [
    ("img_path", "prompt"), ("image", "question"), ("Image Path", "Question"), ("file_name", "text"),
    (" FileName ", "QUERY"), ("path", "instruction"), ("图片", "问题"), None,
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    for name, _ in PAIRS:
        (tmp_path / name).write_bytes(picture())
    return tmp_path


def asked(
    path: Path, prompt: str | None = None, encoding: str | None = None
) -> list[tuple[str, str]]:
    """The pairs of a list, all of whose rows can be asked."""
    rows = read_rows([str(path)], prompt, encoding)
    assert not [row for row in rows if isinstance(row, BadRow)]
    return [
        (Path(row.img_path).relative_to(path.parent).as_posix(), row.prompt)
        for row in rows if isinstance(row, Row)
    ]  # fmt: skip


def refused(path: Path, prompt: str | None = None) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_rows([str(path)], prompt)
    return caught.value


def table(rows: list[tuple[str, ...]], **how: object) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, **how).writerows(rows)  # type: ignore[arg-type]
    return out.getvalue()


# --- the cases that were brought ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("semicolon.csv", b"img_path;prompt\r\na.png;What is in the picture?\r\n"),
        ("utf16.csv", "\ufeffimg_path\tprompt\r\na.png\tWhat is in the picture?\r\n".encode("utf-16-le")),
        ("list.tsv", b"img_path\tprompt\na.png\tWhat is in the picture?\n"),
    ],
)  # fmt: skip
def test_a_list_of_another_program_is_answered(
    folder: Path,
    tiny_folder: Path,
    name: str,
    data: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / name).write_bytes(data)
    call = ["infer", "--model", str(tiny_folder), "--img_path", str(folder / name), "--json"]
    assert main(call) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["prompt"] == "What is in the picture?"
    assert printed.err == ""


# --- the sweep ------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_dialect_gives_the_same_pairs(folder: Path, encoding: str, delimiter: str) -> None:
    """Encodings × separators × sep= line × header names × quoting × line ends."""
    codec = ENCODINGS[encoding]
    mark = "\ufeff" if encoding == "utf-16 of others" else ""
    path = folder / ("list.tsv" if delimiter == "\t" else "list.csv")
    ways = itertools.product(
        (False, True), HEADERS, (csv.QUOTE_MINIMAL, csv.QUOTE_ALL), ("\n", "\r\n")
    )
    for sep, header, quoting, end in ways:
        rows = [*([header] if header else []), *PAIRS]
        text = table(rows, delimiter=delimiter, quoting=quoting, lineterminator=end)
        first = f"sep={delimiter}{end}" if sep else ""
        path.write_bytes((mark + first + text).encode(codec))
        assert asked(path) == PAIRS, (sep, header, quoting, end)


def test_every_name_of_a_column(folder: Path) -> None:
    names = [*((one, "prompt") for one in PICTURE_KEYS), *(("image", two) for two in PROMPT_KEYS)]
    for one, two in names:
        for spelled in (str, str.upper, lambda name: f" {name.title()} ".replace("_", " ")):
            header = spelled(one), spelled(two)
            (folder / "x.csv").write_text(table([("id", *header), ("1", "a.png", "what")]), "utf-8")
            assert asked(folder / "x.csv") == [("a.png", "what")], header
            line = json.dumps(dict(zip(header, ("a.png", "what"), strict=True)))
            (folder / "x.jsonl").write_text(line, "utf-8")
            assert asked(folder / "x.jsonl") == [("a.png", "what")], header


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["a.png", "b c.jpg"]), st.text('ab,;\t|"\n 猫？', min_size=1).filter(str.strip)), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["utf-8-sig", "utf-16"]),
)  # fmt: skip
def test_what_spreadsheets_write_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[str, str]],
    delimiter: str,
    encoding: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "sheet.csv"
    text = table([("Image", "Question"), *pairs], delimiter=delimiter, lineterminator="\r\n")
    path.write_bytes(text.encode(encoding))
    # Spaces after a delimiter are nobody's question.
    assert [(p, q.strip(" ")) for p, q in asked(path)] == [(p, q.strip(" ")) for p, q in pairs]


# --- what people write by hand --------------------------------------------------------------------

PAIR = [("a.png", "What is it, really?")]


@pytest.mark.parametrize(
    "text",
    [
        'img_path, prompt\na.png, "What is it, really?"\n',
        "'img_path','prompt'\n'a.png','What is it, really?'\n",
        "\n\nimg_path;prompt;;\na.png;What is it, really?;;\n;;;\n\n",
        "img_path，prompt\na.png，What is it, really?\n",
        "prompt\timg_path\nWhat is it, really?\ta.png\n",
        "a.png;What is it, really?",
        "What is it, really?|a.png\n",
        "1\ta.png\tWhat is it, really?\tcat\n2\ta.png\tWhat is it, really?\tdog\n",
        "Bild;Frage\na.png;What is it, really?\n",
        "id;question\na.png;What is it, really?\n",
        "image;image_id;ask\na.png;17;What is it, really?\n",
        "image;file_name;question\n17;a.png;What is it, really?\n",
        "url;path;question\nhttp://x.example/1;a.png;What is it, really?\n",
        "img_path;prompt\na.png;What is it, really?\nimg_path;prompt\na.png;What is it, really?\n",
        "SEP=;\nimg_path;prompt\na.png;What is it, really?\n",
        '"sep=;"\r\nimg_path;prompt\r\na.png;What is it, really?\r\n',
        'img_path,prompt\r"a.png","What is it, really?"\r',
    ],
)
def test_what_a_person_means(folder: Path, text: str) -> None:
    (folder / "x.csv").write_bytes(text.encode())
    assert list(dict.fromkeys(asked(folder / "x.csv"))) == PAIR


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        (r'a.png,"say \"hi\" now, please"', 'say "hi" now, please'),
        ('a.png,"STOP" means what?', '"STOP" means what?'),
        ('a.png,What does "STOP" mean?', 'What does "STOP" mean?'),
        ('"a.png","What does ""STOP"" mean?"', 'What does "STOP" mean?'),
        ("a.png,What is it,", "What is it"),
    ],
)
def test_quotes_as_other_programs_have_them(folder: Path, line: str, prompt: str) -> None:
    (folder / "x.csv").write_text(f"img_path,prompt\n{line}\na.png,next\n")
    assert asked(folder / "x.csv") == [("a.png", prompt), ("a.png", "next")]


@pytest.mark.parametrize(
    "written",
    [
        "inner/c.png", r"inner\c.png", "./inner/c.png", '"""inner/c.png"""', "'inner/c.png'",
        " inner/c.png", "inner/c.png ", "{folder}/inner/c.png", "file://{folder}/inner/c.png",
    ],
)  # fmt: skip
def test_paths_of_a_list_however_written(folder: Path, written: str) -> None:
    path = written.format(folder=folder)
    (folder / "x.csv").write_text(f"img_path,prompt\n{path},what\n")
    (row,) = read_rows([str(folder / "x.csv")], None)
    assert isinstance(row, Row)
    assert Path(row.img_path).samefile(folder / "inner" / "c.png")


def test_a_file_called_as_a_column_does_not_make_the_header_a_row(folder: Path) -> None:
    (folder / "image").touch()
    (folder / "x.csv").write_text("image,question\na.png,what\n")
    assert asked(folder / "x.csv") == [("a.png", "what")]


def test_only_pictures_and_one_question(folder: Path) -> None:
    for name in ("x.txt", "x.csv"):
        (folder / name).write_text("a.png\ntwo words.jpg\n")
        assert asked(folder / name, "what") == [("a.png", "what"), ("two words.jpg", "what")]
    (folder / "x.csv").write_text("Bild,Titel\na.png,first\ntwo words.jpg,second\n")
    assert asked(folder / "x.csv", "what") == [("a.png", "what"), ("two words.jpg", "what")]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
def test_json_arrays_and_objects_over_several_lines(
    folder: Path, name: str, indent: int | None, encoding: str
) -> None:
    objects = [{"File Name": p, "text": q} for p, q in PAIRS]
    texts = [
        json.dumps(objects, indent=indent, ensure_ascii=False),
        "\r\n".join(json.dumps(each, indent=indent, ensure_ascii=False) for each in objects),
    ]
    for text in texts:
        (folder / name).write_bytes(text.encode(encoding))
        assert asked(folder / name) == PAIRS


def test_a_broken_object_of_an_array_spoils_itself(folder: Path) -> None:
    (folder / "x.json").write_text('[\n{"image": "a.png", "text": "x"},\n{"image": "a.png" "text"},\n{"image": "a.png", "text": "y"}\n]')  # fmt: skip
    rows = read_rows([str(folder / "x.json")], None)
    assert [row.prompt for row in rows if isinstance(row, Row)] == ["x", "y"]
    (bad,) = [row for row in rows if isinstance(row, BadRow)]
    assert bad.origin.endswith("line 3")


# --- what cannot be told --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("photo_id;ask\na.png;describe it\n", "“photo_id”, “ask”"),
        ("image,label\na.png,cat\n", "“image”, “label”"),
        ("1,a.png,cat\n2,a.png,dog\n", "“1”, “a.png”, “cat”"),
        ("nr,one,two\n1,a.png,a.png\n", "“nr”, “one”, “two”"),
        ("id,question\n1,what is it?\n", "“id”, “question”"),
        ("a.png what is it\na.png why\n", "“a.png what is it”"),
    ],
)
def test_a_list_that_cannot_be_told_is_one_error_that_says_what_was_seen(
    folder: Path, text: str, seen: str
) -> None:
    (folder / "x.csv").write_text(text)
    error = refused(folder / "x.csv")
    assert error.code == "list_columns"
    assert seen in str(error)
    assert "img_path and prompt" in str(error)


def test_pictures_without_a_suffix_that_are_not_there_yet(folder: Path) -> None:
    (folder / "x.csv").write_text("pics/0001;what, is it\npics/0002;how many\n")
    assert asked(folder / "x.csv") == [("pics/0001", "what, is it"), ("pics/0002", "how many")]


def test_a_list_that_is_not_what_its_mark_says(folder: Path) -> None:
    (folder / "x.csv").write_bytes("img_path,prompt\na.png,what\n".encode("utf-16") + b"\0")
    assert "not UTF-16-LE" in str(refused(folder / "x.csv"))


def test_a_list_of_which_nothing_can_be_asked_is_one_error(folder: Path) -> None:
    (folder / "x.jsonl").write_text('{"a": 1}\n' * 500)
    error = refused(folder / "x.jsonl")
    assert error.code == "list_unread"
    assert "None of the 500 rows" in str(error)
    assert "line 1: no picture is named" in str(error)


def test_addresses_are_not_fetched(folder: Path) -> None:
    (folder / "x.csv").write_text("url,question\nhttps://x.example/a.png,what\na.png,what\n")
    bad, good = read_rows([str(folder / "x.csv")], None)
    assert isinstance(good, Row)
    assert isinstance(bad, BadRow)
    assert "nothing is fetched from the network" in bad.reason
    assert "https://x.example/a.png" in bad.reason
    with pytest.raises(BadRequest, match="nothing is fetched from the network"):
        read_rows(["https://x.example/a.png"], "what")


def test_paths_of_windows_on_another_system(folder: Path) -> None:
    (folder / "x.csv").write_text("img_path,prompt\nC:\\me\\a.png,what\na.png,what\n")
    bad, good = read_rows([str(folder / "x.csv")], None)
    assert isinstance(good, Row)
    assert isinstance(bad, BadRow)
    assert "a path of Windows" in bad.reason


@pytest.mark.parametrize("name", ["x.xlsx", "x.XLS", "x.ods", "x.csv"])
def test_a_spreadsheet_is_to_be_saved_as_csv(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"PK\x03\x04" + bytes(100))
    error = refused(folder / name, "what")
    assert error.code == "list_spreadsheet"
    assert "Save it as CSV" in str(error)


def test_the_encoding_is_told_and_can_be_named(
    folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "図には何がありますか"
    text = f"img_path,prompt\na.png,{question}\na.png,{question}\n"
    (folder / "x.csv").write_bytes(text.encode("shift_jis"))
    assert "name its encoding: --encoding" in str(refused(folder / "x.csv"))
    assert asked(folder / "x.csv", encoding="shift_jis") == [("a.png", question)] * 2
    (folder / "y.csv").write_bytes("img_path,prompt\na.png,图里有什么？\n".encode("gbk"))
    call = ["infer", "--model", str(tiny_folder), "--img_path", str(folder / "y.csv"), "--json"]
    assert main(call) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["prompt"] == "图里有什么？"
    assert printed.err == f"{folder}/y.csv: read as GB18030; --encoding names another encoding.\n"
    assert main([*call, "--encoding", "gbk"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*call, "--encoding", "utf-8"]) == 2
    assert "not UTF-8" in capsys.readouterr().err
    assert main([*call, "--encoding", "base64"]) == 2
    assert "'base64' is no encoding" in capsys.readouterr().err


def test_a_list_that_is_mostly_utf_8_keeps_its_rows(folder: Path) -> None:
    good = "a.png,图里有什么\n" * 3
    (folder / "x.csv").write_bytes(f"img_path,prompt\n{good}".encode() + b"a.png,\xff\xfe\n")
    rows = read_rows([str(folder / "x.csv")], None)
    assert [type(row) for row in rows] == [Row, Row, Row, BadRow]
