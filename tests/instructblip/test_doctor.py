"""doctor: whether a folder will work here, in plain words."""

from pathlib import Path

import pytest

from instructblip import cli
from instructblip.checkpoints import room

DATA = Path(__file__).resolve().parents[1] / "oracle" / "data"


def told(capsys: pytest.CaptureFixture[str], *flags: str | Path) -> tuple[int, str]:
    code = cli.main(["doctor", "--device", "cpu", *map(str, flags)])
    return code, capsys.readouterr().out


def test_a_good_folder(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, "--model", DATA, "--dtype", "fp32")
    assert code == 0
    assert "will work here" in said
    assert "LAVIS layout" in said
    assert str(DATA / "eva_vit_g.pth") in said
    assert "1000 words" in said
    assert "non-commercial" in said
    assert "float32 on cpu" in said
    assert "FAULT" not in said


def test_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys)
    assert code == 0
    assert "transformers layout" in said


def test_each_fault_is_told_and_the_code_is_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for model, word in ((tmp_path / "nowhere", "no folder"), (tmp_path, "LAVIS's files")):
        code, said = told(capsys, "--model", model)
        assert code == 1
        assert word in said
        assert "will not work here" in said
    code, said = told(capsys, "--dtype", "int9")
    assert code == 1
    assert "int9" in said


def test_a_fault_does_not_hide_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor", "--device", "abacus", "--model", str(DATA)])
    said = capsys.readouterr().out
    assert code == 1
    assert "abacus" in said
    assert "187 tensors" in said


def test_too_little_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: 1000)
    code, said = told(capsys, "--model", DATA)
    assert code == 1
    assert "of memory" in said


def test_mapped_weights_that_exceed_memory_are_said_to_be_slow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from instructblip.checkpoints import loading
    from instructblip.checkpoints.convert import convert

    convert(DATA, tmp_path / "model", dtype="bf16")
    monkeypatch.setattr(loading, "free_memory", lambda: 1000)
    code, said = told(capsys, "--model", tmp_path / "model", "--dtype", "bf16")
    assert code == 0
    assert "read them from the disk" in said


def test_parts_can_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parts = {"--vicuna": "vicuna", "--bert": "bert", "--eva": "eva_vit_g.pth",
             "--instruct-blip": "instruct_blip_trimmed.pth"}  # fmt: skip
    flags = [word for flag, name in parts.items() for word in (flag, DATA / name)]
    code, said = told(capsys, "--model", tmp_path, *flags)
    assert code == 0, said
