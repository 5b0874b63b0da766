"""Folders that load, and folders that say why they do not."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import instructblip
from instructblip.errors import CheckpointError, DeviceError
from tests.tiny import make_checkpoint


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        instructblip.load(folder, device="cpu")
    return str(caught.value)


def test_official_folders_need_no_properties_file(tmp_path: Path) -> None:
    model = instructblip.load(make_checkpoint(tmp_path / "instructblip-vicuna"), device="cpu")
    assert model.properties.default_layout == "refresh"
    assert model.properties.generation.repetition_penalty == 1.5


def test_each_fault_is_named(folder: Path) -> None:
    assert "no config.json" in refused(folder / "nowhere")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    whole = weights.read_bytes()

    save_file({k: v for k, v in tensors.items() if k != "language_projection.bias"}, weights)
    assert "language_projection.bias" in refused(folder)
    weights.write_bytes(whole[: len(whole) // 2])
    assert str(folder) in refused(folder)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert str(folder) in refused(folder)
    weights.write_bytes(whole)
    (folder / "tokenizer.model").write_text("<html>")
    assert "tokenizer.model" in refused(folder)


def test_other_architectures_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Blip2ForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "Blip2ForConditionalGeneration" in refused(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"template": "poem"}, "template"), ({"default_layout": "x"}, "default_layout"),
        ({"query_tokens": 0}, "query_tokens"), ({"query_tokens": 9}, "query tokens"),
        ({"context_length": "long"}, "context_length"),
    ],
)  # fmt: skip
def test_a_wrong_properties_file_is_named(folder: Path, change: dict, word: str) -> None:
    path = folder / "properties.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert word in refused(folder)


def test_an_absent_device_is_named(folder: Path) -> None:
    with pytest.raises(DeviceError, match="npu"):
        instructblip.load(folder, device="npu")
    with pytest.raises(DeviceError, match="abacus"):
        instructblip.load(folder, device="abacus")
