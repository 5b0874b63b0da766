"""Weight files that are something else, and pickles that carry code."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from instructblip.checkpoints import room
from instructblip.checkpoints.files import is_mappable, read_tensors, shard_files
from instructblip.errors import CheckpointError

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html>denied</html>", "web page"),
        (b"<html>", "web page"),
        (b"", "is empty"),
        (b"words, not weights", "not a whole torch file"),
        (b"PK\x03\x04" + bytes(500), "cut short"),
    ],
)
@pytest.mark.parametrize("name", ["eva_vit_g.pth", "pytorch_model.bin"])
def test_what_only_has_the_name_is_named(
    tmp_path: Path, name: str, content: bytes, word: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert word in refused(path)


def test_a_cut_download_is_named_at_any_length(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save(WEIGHTS, whole)
    data = whole.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        assert "cut short" in refused(path)


def test_a_cut_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut short" in refused(path)
    path.write_bytes(struct.pack("<Q", 2**60))
    refused(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_with_code_is_refused_and_never_runs(tmp_path: Path, old: bool) -> None:
    path, mark = tmp_path / "model.pth", tmp_path / "code-was-run"
    torch.save({"model": WEIGHTS, "more": Bomb(mark)}, path, _use_new_zipfile_serialization=not old)
    assert "asks for code to be run" in refused(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))  # the bomb does work
    assert mark.exists()


def test_a_bare_pickle_with_code_never_runs(tmp_path: Path) -> None:
    path, mark = tmp_path / "model.pth", tmp_path / "code-was-run"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    refused(path)
    assert not mark.exists()


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "epoch": 3, "config": {}}])
@pytest.mark.parametrize("old", [False, True])
def test_whole_files_are_read(tmp_path: Path, wrap, old: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap(WEIGHTS), path, _use_new_zipfile_serialization=not old)
    found = read_tensors(path)
    assert is_mappable(path) is not old
    assert found.keys() == WEIGHTS.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, WEIGHTS[name])
        assert tensor.dtype == WEIGHTS[name].dtype


def test_an_old_file_larger_than_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.pth"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(room, "free_memory", lambda: 10)
    assert "of memory" in refused(path)


@pytest.mark.parametrize("content", [{"model": 3}, {}, [1, 2], {"a": "b"}])
def test_a_file_without_tensors_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    assert "no tensors" in refused(path)


def test_shards_are_those_of_the_index_and_all_must_be_there(tmp_path: Path) -> None:
    index = tmp_path / "pytorch_model.bin.index.json"
    with pytest.raises(CheckpointError, match="holds no weights"):
        shard_files(tmp_path)
    index.write_text('{"weight_map": {"a": "two.bin", "b": "one.bin", "c": "one.bin"}}')
    with pytest.raises(CheckpointError, match="lacks 2 of 2 shards"):
        shard_files(tmp_path)
    for name in ("one.bin", "two.bin", "three.bin"):
        (tmp_path / name).touch()
    assert [f.name for f in shard_files(tmp_path)] == ["one.bin", "two.bin"]
    (tmp_path / "model.safetensors").touch()  # goes before .bin, as in transformers
    assert [f.name for f in shard_files(tmp_path)] == ["model.safetensors"]


@pytest.mark.parametrize("text", ["<html>", "[]", "{}", '{"weight_map": 3}'])
def test_a_wrong_index_is_named(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(CheckpointError, match="no index of shards"):
        shard_files(tmp_path)


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "eva_vit_g.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    assert "compressed archive" in refused(path)


def test_a_norm_of_another_shape_is_not_read(lavis: Path) -> None:
    """A view can say that it has more numbers than any memory holds."""
    from tests.instructblip.checkpoints import conftest

    endless = torch.zeros(1).expand(2**45)
    conftest.change(
        lavis / "vicuna" / "pytorch_model-00002-of-00002.bin",
        lambda w: w.update({"model.norm.weight": endless}),
    )
    assert "1 misshapen (language_model.model.norm.weight" in conftest.refused(lavis)
