"""Folders that hold several sets of weights: the one that transformers reads, and a word about it."""

import itertools
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import InstructBlipForConditionalGeneration, LlamaForCausalLM

import instructblip
from instructblip import cli
from instructblip.checkpoints.files import shard_files
from instructblip.checkpoints.source import open_source
from instructblip.checkpoints.weights import weight_files
from instructblip.errors import CheckpointError
from tests.instructblip.checkpoints.conftest import refused
from tests.llamas import base_and_delta, change_json, linked, make_llama, tensors_of

NORM = "language_model.model.norm.weight"
SETS = ("whole safetensors", "sharded safetensors", "whole bin", "sharded bin")
MIXES = [mix for count in range(1, 5) for mix in itertools.combinations(SETS, count)]


def write_set(
    folder: Path, name: str, tensors: dict[str, torch.Tensor], shards: int = 2, variant: str = ""
) -> None:
    """One set of weights under transformers' names."""
    safe = "safetensors" in name
    stem, end = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    dot = f".{variant}" if variant else ""

    def save(part: dict[str, torch.Tensor], file: str) -> None:
        (folder / file).unlink(missing_ok=True)
        if safe:
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)

    if name.startswith("whole"):
        return save(tensors, f"{stem}{dot}.{end}")
    places = {}
    for number in range(shards):
        file = f"{stem}{dot}-{number + 1:05}-of-{shards:05}.{end}"
        part = dict(list(tensors.items())[number::shards])
        save(part, file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{stem}.{end}.index{dot}.json").write_text(json.dumps(index))
    return None


@pytest.fixture
def tensors(tiny_folder: Path) -> dict[str, torch.Tensor]:
    return tensors_of(tiny_folder)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model without its weights."""
    made = linked(tiny_folder, tmp_path / "model")
    (made / "model.safetensors").unlink()
    return made


def marked(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Other weights for each set: one tensor is filled with the set's number."""
    number = float(SETS.index(name) + 1) if name in SETS else 9.0
    return tensors | {NORM: torch.full_like(tensors[NORM], number)}


@pytest.mark.parametrize("mix", MIXES, ids=", ".join)
def test_every_mix_is_read_as_transformers_reads_it(
    folder: Path, tensors: dict[str, torch.Tensor], mix: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for name in mix:
        write_set(folder, name, marked(tensors, name))
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()
    with caplog.at_level(logging.WARNING):
        ours = instructblip.load(folder, device="cpu", dtype="fp32").weights.state_dict()
    assert torch.equal(ours[NORM], plain[NORM])
    notes = [r.message for r in caplog.records if r.name.startswith("instructblip")]
    assert len(notes) == (len(mix) > 1)
    for note in notes:
        assert "is read, as transformers does" in note


@pytest.mark.parametrize("mix", [MIXES[4], MIXES[6], MIXES[9], MIXES[14]], ids=", ".join)
@pytest.mark.parametrize("side", ["llama-7b", "delta"])
def test_a_merge_reads_what_transformers_reads(
    tmp_path: Path, capsys, mix: tuple[str, ...], side: str
) -> None:
    base, delta = base_and_delta(tmp_path)
    folder, norm = tmp_path / side, "model.norm.weight"
    found = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    for name in mix:
        number = float(SETS.index(name) + 1)
        write_set(folder, name, found | {norm: torch.full_like(found[norm], number)})
    flags = ["--base", str(base), "--delta", str(delta), "--target", str(tmp_path / "out")]
    assert cli.main(["vicuna", *flags]) == 0
    assert f"note: {folder} holds several sets" in capsys.readouterr().err
    sides = [LlamaForCausalLM.from_pretrained(f, dtype=torch.float16) for f in (base, delta)]
    total = sum(s.state_dict()[norm] for s in sides)
    assert torch.equal(tensors_of(tmp_path / "out")[norm], total)


@pytest.mark.parametrize("mix", [MIXES[4], MIXES[9]], ids=", ".join)
def test_the_language_model_in_laviss_layout_is_read_so_too(
    lavis: Path, mix: tuple[str, ...]
) -> None:
    from instructblip.checkpoints.files import read_tensors

    folder, norm = lavis / "vicuna", "model.norm.weight"
    found = {n: t.clone() for f in shard_files(folder) for n, t in read_tensors(f).items()}
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    for name in mix:
        number = float(SETS.index(name) + 1)
        write_set(folder, name, found | {norm: torch.full_like(found[norm], number)})
    source = open_source(lavis)
    assert "holds several sets" in "".join(source.notes)
    plain = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float16).state_dict()
    ours = instructblip.load(lavis, device="cpu", dtype="fp16").weights.language_model.state_dict()
    assert torch.equal(ours[norm], plain[norm])


def test_saved_sharded_and_later_whole_needs_no_old_shard(
    folder: Path, tensors: dict[str, torch.Tensor]
) -> None:
    """An index whose shards are gone says nothing of the whole file that was saved after it."""
    write_set(folder, "sharded safetensors", marked(tensors, "sharded safetensors"))
    write_set(folder, "whole safetensors", marked(tensors, "whole safetensors"))
    (folder / "model-00001-of-00002.safetensors").unlink()
    ours = instructblip.load(folder, device="cpu", dtype="fp32").weights.state_dict()
    assert (ours[NORM] == 1).all()


def test_shards_of_an_older_sharding_are_told(
    folder: Path, tensors: dict[str, torch.Tensor]
) -> None:
    write_set(folder, "sharded safetensors", tensors, shards=3)
    write_set(folder, "sharded safetensors", tensors, shards=2)
    found = weight_files(folder)
    assert [f.name for f in found.files] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    [note] = found.notes
    assert "model-00001-of-00003.safetensors" in note
    instructblip.load(folder, device="cpu")


def test_a_missing_shard_is_told_with_what_else_lies_there(
    folder: Path, tensors: dict[str, torch.Tensor]
) -> None:
    write_set(folder, "sharded safetensors", tensors)
    (folder / "model-00002-of-00002.safetensors").unlink()
    said = refused(folder)
    assert "lacks 1 of 2 shards" in said
    assert "model-00002-of-00002.safetensors" in said
    assert "not complete" in said
    assert "is old" not in said
    write_set(folder, "whole bin", tensors)
    said = refused(folder)
    assert "Or model.safetensors.index.json is old: without it pytorch_model.bin is read" in said
    (folder / "model.safetensors.index.json").unlink()
    instructblip.load(folder, device="cpu")


@pytest.mark.parametrize("name", SETS)
def test_the_only_variant_is_read_and_said(
    folder: Path, tensors: dict[str, torch.Tensor], name: str
) -> None:
    write_set(folder, name, marked(tensors, name), variant="fp16")
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder, variant="fp16")
    ours = instructblip.load(folder, device="cpu", dtype="fp32").weights.state_dict()
    assert torch.equal(ours[NORM], plain.state_dict()[NORM])
    [note] = open_source(folder).notes
    assert "the variant fp16 is read" in note


def test_a_variant_beside_the_plain_weights_is_not_read(
    folder: Path, tensors: dict[str, torch.Tensor]
) -> None:
    write_set(folder, "whole safetensors", tensors, variant="fp16")
    write_set(folder, "sharded bin", marked(tensors, "sharded bin"))
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()
    ours = instructblip.load(folder, device="cpu", dtype="fp32").weights.state_dict()
    assert torch.equal(ours[NORM], plain[NORM])
    assert "model.fp16.safetensors" in open_source(folder).notes[0]


def test_two_variants_are_named(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_set(folder, "whole safetensors", tensors, variant="fp16")
    write_set(folder, "sharded bin", tensors, variant="ema")
    said = refused(folder)
    assert "2 variants (ema, fp16)" in said


def test_a_file_that_config_names_goes_first(
    folder: Path, tensors: dict[str, torch.Tensor]
) -> None:
    write_set(folder, "whole safetensors", tensors)
    own = marked(tensors, "whole bin")
    save_file(own, folder / "mine.safetensors", metadata={"format": "pt"})
    text = (folder / "config.json").read_text()
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(text)
    change_json(folder / "config.json", transformers_weights="mine.safetensors")
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).state_dict()
    ours = instructblip.load(folder, device="cpu", dtype="fp32").weights.state_dict()
    assert torch.equal(ours[NORM], plain[NORM])
    for wrong in ("../mine.safetensors", "absent.safetensors", 3, "config.json"):
        change_json(folder / "config.json", transformers_weights=wrong)
        assert "transformers_weights = " in refused(folder)


@pytest.mark.parametrize(
    "places",
    [{}, {"a": 3}, {"a": "../model.safetensors"}, {"a": "/etc/hostname"}, {"a": ""}, {"a": "\ud800"},
     {"a": "x\0y"}, ["a"], None, {"a": {"b": "c"}}],
)  # fmt: skip
def test_an_index_that_names_no_files_beside_it(tmp_path: Path, places: object) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match="no index of shards") as caught:
        weight_files(tmp_path)
    assert str(index) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_lora_beside_whole_weights_is_said_not_to_be_applied(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llama")
    (folder / "adapter_config.json").write_text("{}")
    [note] = weight_files(folder).notes
    assert "not applied" in note


def test_doctor_says_what_is_read(
    folder: Path, tensors: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in SETS[:2]:
        write_set(folder, name, tensors)
    assert cli.main(["doctor", "--device", "cpu", "--model", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Mind: " in said
    assert "model.safetensors is read, as transformers does" in said
