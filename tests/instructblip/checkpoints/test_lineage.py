"""Which language model lies in LAVIS's layout: told by its small files, not accepted in silence.

The values are those of published files, as they are reported in public (lineage.py names where).
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import instructblip
from instructblip import cli
from instructblip.checkpoints import lineage
from instructblip.checkpoints.convert import convert
from instructblip.checkpoints.source import open_source
from instructblip.errors import CheckpointError
from tests.instructblip.checkpoints.conftest import change, refused
from tests.llamas import base_and_delta, change_json

V1_5 = {
    "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "num_key_value_heads": 4,
    "pretraining_tp": 1, "rope_scaling": None, "transformers_version": "4.31.0",
}  # fmt: skip
V1_5_GENERATION = {
    "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "max_length": 4096,
    "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6, "transformers_version": "4.31.0",
}  # fmt: skip
OTHERS = {
    "Vicuna v1.5": (V1_5, "LLaMA 2"),
    "Vicuna v1.5, its name gone": (V1_5 | {"_name_or_path": ...}, "LLaMA 2"),
    "Vicuna v1.5-16k": (V1_5 | {"rope_scaling": {"factor": 4.0, "type": "linear"}}, "v1.5-16k"),
    "LLaMA-2-7b, a conversion with 2048 positions": (
        V1_5 | {"max_position_embeddings": 2048, "attention_bias": False}, "LLaMA 2",
    ),
    "saved by transformers 5": (
        {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "dtype": "float16",
         "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}, "LLaMA 2",
    ),
    "an epsilon that went through a float32": (
        {"rms_norm_eps": 9.999999747378752e-06}, "LLaMA 2",
    ),
    "LLaMA 3": ({"rope_theta": 500000.0, "rms_norm_eps": 1e-5}, "LLaMA 3"),
    "LLaMA 3, as of transformers 5": (
        {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}, "LLaMA 3",
    ),
    "Code Llama": ({"rope_theta": 1000000, "max_position_embeddings": 16384}, "Code Llama"),
}  # fmt: skip
WANTED = {
    "merged with FastChat": {},
    "the config of the first conversions": {  # salesforce/LAVIS issue 509
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1,
    },
    "merged into another conversion": {"max_sequence_length": 2048, "transformers_version": "4.29.1"},
    "saved again by transformers 4.31": {
        "num_key_value_heads": 4, "pretraining_tp": 1, "rope_scaling": None,
    },
    "saved again by transformers 5": {
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "head_dim": 16,
        "attention_bias": False, "mlp_bias": False, "torch_dtype": ..., "dtype": "float16",
    },
    "without what LLaMA has by default": {"max_position_embeddings": ..., "rms_norm_eps": ...},
}  # fmt: skip
DOUBTFUL = {
    "an extended context": ({"max_position_embeddings": 4096}, {}, "max_position_embeddings = 4096"),
    "another epsilon": ({"rms_norm_eps": 5e-6}, {}, "rms_norm_eps = 5e-06"),
    "v1.3 by name": ({"_name_or_path": "lmsys/vicuna-7b-v1.3"}, {}, "vicuna-7b-v1.3"),
    "LLaMA-2-7b-chat of July 2023": ({"max_length": 4096}, {}, "max_length = 4096"),
    "only its generation is LLaMA 2's": ({}, V1_5_GENERATION, "temperature = 0.9"),
    "LLaMA itself": ({"architectures": ["LLaMAForCausalLM"]}, {}, "LLaMA itself"),
    "scaled positions": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}}, {}, "rope_type = \"linear\"",
    ),
    "added words by its config": ({"vocab_size": 32001}, {}, "Vicuna v0"),
}  # fmt: skip


def sized(folder: Path, values: dict[str, Any], generation: dict[str, Any] | None = None) -> Path:
    """The reference checkpoint with a language model of these values."""
    change_json(folder / "vicuna" / "config.json", **values)
    if generation:
        change_json(folder / "vicuna" / "generation_config.json", **generation)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_another_language_model_is_refused_by_what_it_is(lavis: Path, name: str) -> None:
    values, family = OTHERS[name]
    said = refused(sized(lavis, values))
    assert str(lavis / "vicuna") in said
    assert family in said
    assert "config.json has" in said
    assert "trained on Vicuna v1.1" in said
    assert "python -m instructblip vicuna" in said


@pytest.mark.parametrize("name", WANTED)
def test_what_may_be_v1_1_loads_without_a_word(
    lavis: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        instructblip.load(sized(lavis, WANTED[name]), device="cpu")
    assert not [r for r in caplog.records if r.name.startswith("instructblip")]


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_not_known_loads_with_a_warning(
    lavis: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    values, generation, word = DOUBTFUL[name]
    with caplog.at_level(logging.WARNING):
        instructblip.load(sized(lavis, values, generation), device="cpu")
    [note] = [r.message for r in caplog.records if r.name.startswith("instructblip")]
    assert word in note
    assert "What proves it: the checksums" in note


def test_each_family_names_where_its_values_are_reported() -> None:
    for family in (*lineage.FAMILIES, *lineage.DOUBTS):
        assert family.source
        assert family.marks
    assert [family.word for family in lineage.FAMILIES if family.wanted] == ["llama-1"]


def test_every_way_in_tells_it(
    lavis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sized(lavis, V1_5)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(lavis / "vicuna", elsewhere)
    picture = Path(__file__).parents[2] / "oracle" / "data" / "images" / "gradient.png"
    for command in (
        ["infer", "--img_path", str(picture), "--prompt", "x", "--device", "cpu"],
        ["convert", "--out", str(tmp_path / "out")],
        ["doctor", "--device", "cpu"],
    ):
        assert cli.main([*command, "--model", str(lavis), "--vicuna", str(elsewhere)]) == 1
        told = capsys.readouterr()
        assert "LLaMA 2 (as Vicuna v1.5" in told.out + told.err
    assert not (tmp_path / "out").exists()


def test_doctor_says_what_the_files_tell_and_what_they_do_not(
    lavis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--device", "cpu", "--model", str(lavis)]) == 0
    said = capsys.readouterr().out
    assert "the first LLaMA (Vicuna v1.1 and v1.3 are, and so is LLaMA itself)" in said
    assert "checksums" in said
    sized(lavis, {"max_position_embeddings": 4096})
    assert cli.main(["doctor", "--device", "cpu", "--model", str(lavis)]) == 0
    said = capsys.readouterr().out
    assert "no language model that is known" in said
    assert "Mind: " in said


def test_convert_says_its_doubts(lavis: Path, tmp_path: Path, capsys) -> None:
    convert(sized(lavis, {"max_position_embeddings": 4096}), tmp_path / "out", dtype="fp16")
    assert "max_position_embeddings = 4096" in capsys.readouterr().err


def test_a_training_of_ones_own_says_what_it_was_made_on(lavis: Path) -> None:
    elsewhere = (lavis / "instruct_blip_trimmed.pth").rename(lavis.parent / "trained.pth")
    said = refused(sized(lavis, V1_5), instruct_blip=elsewhere)
    elsewhere.rename(lavis / "instruct_blip_trimmed.pth")
    assert '{"language_model": "llama-2"}' in said
    assert str(lavis / "config.json") in said
    change_json(lavis / "config.json", language_model="llama-2")
    assert open_source(lavis).notes == ()
    change_json(lavis / "config.json", language_model="llama-3")
    assert "LLaMA 2" in refused(lavis)
    change_json(lavis / "config.json", language_model="mine")
    assert 'language_model = "mine"' in refused(lavis)


def test_a_whole_checkpoint_has_the_language_model_of_its_own_training(lavis: Path) -> None:
    from instructblip.checkpoints.files import index, read_tensors, shard_files

    shards = shard_files(lavis / "vicuna")
    llm = {n: read_tensors(s.file)[n].clone() for n, s in index(shards).items()}
    change(
        lavis / "instruct_blip_trimmed.pth",
        lambda w: w.update({f"llm_model.{n}": t for n, t in llm.items()}),
    )
    assert open_source(sized(lavis, V1_5)).notes == ()


def test_a_tokenizer_of_as_many_words_that_is_not_llamas(tmp_path: Path) -> None:
    class Words:
        """A tokenizer of 32,000 words, as OpenLLaMA's and LLaMA's both are."""

        def __init__(self, number: int, size: int = 32000) -> None:
            self.number, self.size = number, size

        def id_of(self, piece: str) -> int:
            return self.number if piece == "▁Hello" else 0

    lineage.check_words(tmp_path, Words(15043))  # type: ignore[arg-type]
    lineage.check_words(tmp_path, Words(7, 1000))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="OpenLLaMA"):
        lineage.check_words(tmp_path, Words(7))  # type: ignore[arg-type]


# --- the merge -------------------------------------------------------------------------------------


def merge(base: Path, delta: Path, target: Path) -> int:
    return cli.main(["vicuna", "--base", str(base), "--delta", str(delta), "--target", str(target)])


@pytest.mark.parametrize("name", ["Vicuna v1.5", "LLaMA 3", "Code Llama"])
@pytest.mark.parametrize("sides", [("llama-7b",), ("delta",), ("llama-7b", "delta")])
def test_a_merge_with_another_family_is_refused(
    tmp_path: Path, capsys, name: str, sides: tuple[str, ...]
) -> None:
    base, delta = base_and_delta(tmp_path)
    values, family = OTHERS[name]
    for side in sides:
        change_json(tmp_path / side / "config.json", **values)
    assert merge(base, delta, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert family in said or "rms_norm_eps" in said
    assert "delta-v1.1" in said or "LLaMA 2 has 1e-05" in said
    assert not (tmp_path / "out").exists()


def test_a_merge_of_the_first_llama_says_nothing(tmp_path: Path, capsys) -> None:
    base, delta = base_and_delta(tmp_path)
    change_json(base / "config.json", architectures=["LLaMAForCausalLM"], pad_token_id=-1)
    assert merge(base, delta, tmp_path / "out") == 0
    assert "note:" not in capsys.readouterr().err
    merged = json.loads((tmp_path / "out" / "config.json").read_text())
    assert merged["rms_norm_eps"] == 1e-6


def test_a_merge_says_its_doubts(tmp_path: Path, capsys) -> None:
    base, delta = base_and_delta(tmp_path)
    change_json(base / "generation_config.json", **V1_5_GENERATION)
    assert merge(base, delta, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert f"note: {base} cannot be told" in said
