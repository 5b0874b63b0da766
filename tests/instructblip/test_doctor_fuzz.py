"""doctor never dies, whatever lies in any file of the folder, and what it calls well does load."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import instructblip
from instructblip import cli, doctor
from instructblip.diagnosis import Finding, Machine
from instructblip.errors import InstructBlipError
from tests.llamas import linked

DATA = Path(__file__).resolve().parents[1] / "oracle" / "data"
UNUSED = shutil.ignore_patterns("expected*", "images", "README.md")
MACHINE = Machine()
PICTURE = Image.new("RGB", (40, 30), "red")

SHORT = st.sampled_from([
    b"", b"{}", b"[]", b"null", b"\xff\xfe", b"\0" * 300, b"[" * 50_000, b'{"a":' * 50_000,
    b"9" * 5000, b"1e999", b'"\\ud800"', b"PK\3\4" + bytes(100), b"\x80\2}q\0.", b"GGUF" + bytes(99),
    b'{"model_type": 3}', b'{"weight_map": {"a": "\\ud800"}}', b'{"architectures": [[]]}',
    b'{"tokenizer_class": "x", "auto_map": {"AutoTokenizer": ["x.y", null]}}',
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="session")
def lavis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(DATA, tmp_path_factory.mktemp("lavis") / "lavis", ignore=UNUSED)


def files_of(folder: Path) -> list[Path]:
    return sorted(f.relative_to(folder) for f in folder.rglob("*") if f.is_file())


def examined(folder: Path) -> list[Finding]:
    """doctor's findings; each can be shown on any terminal, and foresaw what lies there."""
    found = list(doctor.examine(folder, device="cpu", dtype="fp32", machine=MACHINE))
    for finding in found:
        doctor.printable(str(finding)).encode()
        assert "no check foresaw" not in finding.text, finding.text
    return found


def well_means_that_it_loads(folder: Path, found: list[Finding]) -> None:
    if any(finding.well is False for finding in found):
        return
    model = instructblip.load(folder, device="cpu", dtype="fp32", prepack=False)
    with suppress(InstructBlipError):  # the weights themselves are not looked at by doctor
        model.query(model.encode_image(PICTURE), "What is it?")


def spoiled(source: Path, where: Path, change: Callable[[Path], None]) -> None:
    made = linked(source, where / "model")
    try:
        change(made)
        well_means_that_it_loads(made, examined(made))
    finally:
        shutil.rmtree(where)


def replaced(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def cut_or_flipped(data: bytes, draw: st.DataObject) -> bytes:
    """A part of a file, or all of it with some bytes changed, most of them near its beginning."""
    if draw.draw(st.booleans()):
        return data[: draw.draw(st.integers(0, len(data)))]
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        reach = draw.draw(st.sampled_from([64, 2000, 10**9]))
        place = draw.draw(st.integers(0, max(0, min(len(data), reach) - 1)))
        changed[place : place + 1] = draw.draw(st.binary(min_size=0, max_size=9))
    return bytes(changed)


HARD = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("layout", ["tiny_folder", "lavis_folder"])
@HARD
@given(draw=st.data())
def test_any_bytes_in_any_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, layout: str,
    draw: st.DataObject,
) -> None:  # fmt: skip
    source: Path = request.getfixturevalue(layout)

    def change(folder: Path) -> None:
        for name in draw.draw(st.lists(st.sampled_from(files_of(source)), min_size=1, max_size=2)):
            how = draw.draw(st.integers(0, 3))
            data = (source / name).read_bytes()
            content = (
                draw.draw(SHORT) if how == 0
                else draw.draw(st.binary(max_size=600)) if how == 1
                else cut_or_flipped(data, draw)
            )  # fmt: skip
            replaced(folder / name, content)

    spoiled(source, tmp_path_factory.mktemp("any"), change)


def changed_inside(value: Any, draw: st.DataObject) -> Any:
    """A JSON value with one part of it replaced, taken away or added."""
    if isinstance(value, dict) and value and draw.draw(st.booleans()):
        key = draw.draw(st.sampled_from(sorted(value)))
        if draw.draw(st.integers(0, 5)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: changed_inside(value[key], draw)}
    if isinstance(value, list) and value and draw.draw(st.booleans()):
        return [*value[:-1], changed_inside(value[-1], draw)]
    return draw.draw(JSON)


@pytest.mark.parametrize("layout", ["tiny_folder", "lavis_folder"])
@HARD
@given(draw=st.data())
def test_any_value_in_any_json_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, layout: str,
    draw: st.DataObject,
) -> None:  # fmt: skip
    source: Path = request.getfixturevalue(layout)
    names = [name for name in files_of(source) if name.suffix == ".json"]

    def change(folder: Path) -> None:
        name = draw.draw(st.sampled_from(names))
        value = changed_inside(json.loads((source / name).read_text()), draw)
        replaced(folder / name, json.dumps(value).encode())

    spoiled(source, tmp_path_factory.mktemp("json"), change)


ODD = (
    Path.mkdir,
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to(path.name),
    lambda path: None,
)


@pytest.mark.parametrize("layout", ["tiny_folder", "lavis_folder"])
def test_no_file_at_all_but_something_of_its_name(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, layout: str
) -> None:
    """A folder, a pipe, a device without end, a link to itself, nothing."""
    source: Path = request.getfixturevalue(layout)
    for number, name in enumerate(files_of(source)):
        for make in (ODD[number % len(ODD)], ODD[(number + 2) % len(ODD)]):

            def change(folder: Path, name: Path = name, make: Callable = make) -> None:
                (folder / name).unlink()
                make(folder / name)

            spoiled(source, tmp_path_factory.mktemp("odd"), change)


def test_a_name_that_no_terminal_shows(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = linked(tiny_folder, tmp_path / os.fsdecode(b"caf\xe9"))
    replaced(folder / "config.json", b"[")
    assert cli.main(["doctor", "--device", "cpu", "--model", str(folder)]) == 1
    assert "caf\\udce9/config.json is not JSON" in capsys.readouterr().out


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(name=st.text(min_size=1, max_size=12))
@example(name="~nobody-of-this-name/model")
@example(name="\0")
@example(name="a" * 5000)
def test_any_name_of_a_model(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    where = tmp_path_factory.mktemp("name")
    before = Path.cwd()
    os.chdir(where)
    try:
        code = cli.main(["doctor", "--device", "cpu", "--model", f"./{name}"])
        assert code in (0, 1)
    finally:
        os.chdir(before)
        shutil.rmtree(where)


def test_an_error_of_an_unknown_kind_is_a_finding(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rust's panic is no Exception."""

    class Panic(BaseException):
        pass

    def panic(*_: object) -> None:
        raise Panic("index out of range\nin line 3")

    monkeypatch.setattr("instructblip.checkpoints.source.open_source", panic)
    found = list(doctor.examine(tiny_folder, device="cpu", machine=MACHINE))
    assert found[-1].well is False
    assert "Panic: index out of range in line 3" in found[-1].text
    monkeypatch.setattr(
        "instructblip.checkpoints.source.open_source",
        lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        list(doctor.examine(tiny_folder, device="cpu", machine=MACHINE))
