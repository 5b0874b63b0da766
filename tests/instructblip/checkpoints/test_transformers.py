"""Folders in transformers' layout: what loads, and what says why it does not."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import instructblip
from instructblip.checkpoints import EMBEDDED
from instructblip.errors import DeviceError
from instructblip.properties import read_properties, write_properties
from tests.instructblip.checkpoints.conftest import DATA, refused
from tests.tiny import make_checkpoint


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def test_official_folders_need_no_properties_file(tmp_path: Path) -> None:
    model = instructblip.load(make_checkpoint(tmp_path / "instructblip-vicuna"), device="cpu")
    assert model.properties.default_layout == "refresh"
    assert model.properties.generation.repetition_penalty == 1.5


def test_each_fault_is_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    whole = weights.read_bytes()

    save_file({k: v for k, v in tensors.items() if k != "language_projection.bias"}, weights)
    assert "1 missing (language_projection.bias)" in refused(folder)
    save_file(tensors | {"adapter": tensors["query_tokens"].clone()}, weights)
    assert "1 unexpected (adapter)" in refused(folder)
    save_file(tensors | {"language_projection.bias": tensors["query_tokens"].clone()}, weights)
    assert "1 misshapen (language_projection.bias [1, 4, 32] instead of [32])" in refused(folder)
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
        ({"context_length": "long"}, "context_length"), ({"ln_vision_eps": 2}, "ln_vision_eps"),
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


def test_buffers_of_old_files_are_not_faults(folder: Path) -> None:
    """Salesforce's own files hold what newer versions of transformers make themselves."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    old = {
        "qformer.embeddings.position_ids": torch.arange(512)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
    }
    save_file(tensors | old, weights)
    model = instructblip.load(folder, device="cpu")
    assert model.weights.qformer.embeddings.position_ids.tolist()[0][:3] == [0, 1, 2]
    assert model.weights.language_model.model.rotary_emb.inv_freq[0] == 1


@pytest.mark.parametrize("sharded", [False, True])
def test_bin_files_load(folder: Path, sharded: bool) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    weights.unlink()
    parts = [dict(list(tensors.items())[i::2]) for i in range(2)] if sharded else [tensors]
    names = [f"pytorch_model-{i}.bin" for i in range(2)] if sharded else ["pytorch_model.bin"]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, folder / name)
    if sharded:
        places = {k: n for n, part in zip(names, parts, strict=True) for k in part}
        index = json.dumps({"weight_map": places})
        (folder / "pytorch_model.bin.index.json").write_text(index)
    state = instructblip.load(folder, device="cpu").weights.state_dict()
    assert all(torch.equal(state[k], v) for k, v in tensors.items())


def test_a_pickle_with_code_in_a_shard_never_runs(folder: Path) -> None:
    mark = folder / "code-was-run"

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(mark),)

    (folder / "model.safetensors").unlink()
    torch.save({"query_tokens": Bomb()}, folder / "pytorch_model.bin")
    assert "asks for code to be run" in refused(folder)
    assert not mark.exists()


def test_weights_are_the_same_as_transformers_reads(folder: Path) -> None:
    from transformers import InstructBlipForConditionalGeneration

    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()
    ours = instructblip.load(folder, device="cpu").weights
    assert not ours.training
    assert ours.state_dict().keys() == plain.keys()
    assert all(torch.equal(plain[k], v) for k, v in ours.state_dict().items())


def test_the_embedded_models_tied_weights_stay_tied() -> None:
    language = instructblip.load("embedded", device="cpu").weights.language_model
    assert language.lm_head.weight is language.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["float32", "fp32", "torch.float32", "FP32"])
def test_names_of_a_dtype(folder: Path, name: str) -> None:
    assert instructblip.load(folder, device="cpu", dtype=name).dtype == torch.float32


def test_an_unknown_dtype_is_named(folder: Path) -> None:
    with pytest.raises(DeviceError, match="int9") as caught:
        instructblip.load(folder, device="cpu", dtype="int9")
    assert caught.value.code == "dtype_unknown"


def test_properties_are_read_back_as_they_were_written(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "properties.json", EMBEDDED / "properties.json"):
        properties = read_properties(path)
        write_properties(tmp_path / "again.json", properties)
        assert read_properties(tmp_path / "again.json") == properties


@pytest.mark.parametrize("content", [b"", b"words", b"<html>"])
def test_a_tokenizer_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.model").write_bytes(content)
    assert f"{folder / 'tokenizer.model'} is" in refused(folder)


def test_a_tokenizer_with_more_words_than_rows_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copy(DATA / "vicuna" / "tokenizer.model", folder)  # 1000 words
    assert "1000 words, the weights have rows for" in refused(folder)


def test_a_qformer_tokenizer_with_more_words_than_rows_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "qformer_tokenizer")
    shutil.copytree(DATA / "bert", folder / "qformer_tokenizer")
    assert "3005 words, the weights have rows for" in refused(folder)
