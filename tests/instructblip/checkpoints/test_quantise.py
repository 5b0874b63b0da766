"""``convert --quantize int4``: the folder starts mapped, answers closely, and says what it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import instructblip
from instructblip import cli
from instructblip.checkpoints.convert import convert
from instructblip.checkpoints.source import open_source
from instructblip.engine.base import Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.errors import CheckpointError
from instructblip.int4 import Int4Linear, suit_int4
from instructblip.model import InstructBlip
from tests.instructblip.checkpoints.conftest import DATA
from tests.tiny import make_checkpoint, picture


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("wide") / "model", width=128)


@pytest.fixture(scope="module")
def quantised(plain: Path) -> Path:
    target = plain.parent / "int4"
    flags = ["--dtype", "bf16", "--quantize", "int4"]
    assert cli.main(["convert", "--model", str(plain), "--out", str(target), *flags]) == 0
    return target


def logits(model: InstructBlip) -> torch.Tensor:
    with torch.inference_mode():
        embeds = model.embed(list(range(5, 25)))[None]
        return model.weights.language_model(inputs_embeds=embeds).logits[0].float()


def test_every_linear_of_the_language_model_is_of_4_bits_and_nothing_else(quantised: Path) -> None:
    weights = instructblip.load(quantised, device="cpu").weights
    kinds = {name for name, m in weights.named_modules() if isinstance(m, Int4Linear)}
    assert len(kinds) == 3 * 7 + 1  # three layers, and lm_head
    assert all(name.startswith("language_model.") for name in kinds)
    file = quantised / "model.safetensors"
    with safe_open(file, "pt") as tensors:
        packed = tensors.get_tensor("language_model.model.layers.0.mlp.up_proj.packed")
        assert packed.dtype == torch.uint8
        assert packed.shape == (256, 64)
    whole = sum(f.stat().st_size for f in (quantised.parent / "model").glob("*.safetensors"))
    assert file.stat().st_size < whole / 2


def test_it_answers_as_the_plain_weights_do_but_for_rounding(plain: Path, quantised: Path) -> None:
    want = logits(instructblip.load(plain, device="cpu", dtype="fp32"))
    got = logits(instructblip.load(quantised, device="cpu", dtype="fp32"))
    assert torch.nn.functional.cosine_similarity(got, want, dim=-1).min() > 0.9
    assert (got - want).abs().max() > 0  # it is another model


def test_chat_through_the_engine_gives_the_model_s_own_best_tokens(quantised: Path) -> None:
    model = instructblip.load(quantised, device="cpu", dtype="fp32")
    engine = LocalEngine(model)
    try:
        engine.register_picture("p", picture())
        params = SamplingParams(max_new_tokens=6)
        last = list(engine.submit(Request("r", "what is it", "p", sampling=params)))[-1]
    finally:
        engine.close()
    # The same weights unpacked once and for all, as devices without the kernel use them.
    suit_int4(model.weights.language_model, torch.device("meta"))
    again = LocalEngine(model)
    try:
        again.register_picture("p", picture())
        want = list(again.submit(Request("r", "what is it", "p", sampling=params)))[-1]
    finally:
        again.close()
    assert last.answer_ids == want.answer_ids


def test_loading_maps_the_bytes_and_makes_nothing_new(quantised: Path) -> None:
    source = open_source(quantised)
    stored = {entry.name: entry.dtype for entry in source.entries}
    assert {d for n, d in stored.items() if n.endswith(".packed")} == {torch.uint8}
    assert {d for n, d in stored.items() if n.endswith(".scales")} == {torch.bfloat16}
    assert not any(entry.anew for entry in source.entries)


def test_what_cannot_be_quantised_says_so_and_leaves_nothing(
    quantised: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="already"):
        convert(quantised, tmp_path / "twice", quantize="int4")
    with pytest.raises(CheckpointError, match="groups of 128"):
        convert(DATA, tmp_path / "narrow", quantize="int4")
    assert list(tmp_path.iterdir()) == []


def test_a_scale_that_is_missing_is_named(quantised: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(quantised, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    del tensors["language_model.lm_head.scales"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.scales"):
        instructblip.load(folder, device="cpu")
