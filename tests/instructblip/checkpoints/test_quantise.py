"""``convert --quantize``: the folder starts mapped, answers closely, and says what it cannot."""

from __future__ import annotations

import json
import shutil
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
from instructblip.int4 import Int4Linear
from instructblip.int8 import Int8Linear
from instructblip.model import InstructBlip
from instructblip.quantised import suit
from instructblip.weight_only import WeightOnlyLinear
from tests.instructblip.checkpoints.conftest import DATA
from tests.tiny import make_checkpoint, picture


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("wide") / "model", width=128)


def converted(plain: Path, how: str) -> Path:
    target = plain.parent / how
    flags = ["--dtype", "bf16", "--quantize", how]
    assert cli.main(["convert", "--model", str(plain), "--out", str(target), *flags]) == 0
    return target


@pytest.fixture(scope="module")
def quantised(plain: Path) -> Path:
    return converted(plain, "int4")


@pytest.fixture(scope="module")
def eight(plain: Path) -> Path:
    return converted(plain, "int8")


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


@pytest.mark.parametrize("kind", ["quantised", "eight"])
def test_chat_through_the_engine_gives_the_model_s_own_best_tokens(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = instructblip.load(request.getfixturevalue(kind), device="cpu", dtype="fp32")
    engine = LocalEngine(model)
    try:
        engine.register_picture("p", picture())
        params = SamplingParams(max_new_tokens=6)
        last = list(engine.submit(Request("r", "what is it", "p", sampling=params)))[-1]
    finally:
        engine.close()
    # The same weights unpacked once and for all, as devices without the kernel use them.
    assert suit(model.weights.language_model, torch.device("meta")) == 3 * 7 + 1
    assert not any(isinstance(m, WeightOnlyLinear) for m in model.weights.modules())
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


def test_eight_bits_halve_the_file_and_start_mapped(plain: Path, eight: Path) -> None:
    weights = instructblip.load(eight, device="cpu").weights
    kinds = {name for name, m in weights.named_modules() if isinstance(m, Int8Linear)}
    assert len(kinds) == 3 * 7 + 1
    assert all(name.startswith("language_model.") for name in kinds)
    stored = {entry.name: (entry.dtype, entry.shape) for entry in open_source(eight).entries}
    name = "language_model.model.layers.0.mlp.up_proj"
    assert stored[f"{name}.levels"] == (torch.int8, (256, 128))
    assert stored[f"{name}.scales"] == (torch.bfloat16, (256,))
    assert json.loads((eight / "config.json").read_text())["instructblip_quantised"] == "int8"
    assert not any(entry.anew for entry in open_source(eight).entries)


def test_eight_bits_answer_more_closely_than_four(
    plain: Path, quantised: Path, eight: Path
) -> None:
    want, four, got = (
        logits(instructblip.load(folder, device="cpu", dtype="fp32"))
        for folder in (plain, quantised, eight)
    )
    assert torch.nn.functional.cosine_similarity(got, want, dim=-1).min() > 0.995
    assert 0 < (got - want).norm() < 0.3 * (four - want).norm()


def test_eight_bits_take_any_width(tmp_path: Path) -> None:
    """Four want groups of 128; these are narrower, and LAVIS's files."""
    convert(DATA, tmp_path / "narrow", quantize="int8")
    weights = instructblip.load(tmp_path / "narrow", device="cpu").weights
    assert any(isinstance(m, Int8Linear) for m in weights.language_model.modules())


def test_a_word_that_is_not_known_is_told(eight: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(eight, tmp_path / "copy")
    text = (folder / "config.json").read_text().replace('"int8"', '"int3"')
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"'int3'.*int4, int8"):
        instructblip.load(folder, device="cpu")


def test_what_cannot_be_quantised_says_so_and_leaves_nothing(
    quantised: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="already"):
        convert(quantised, tmp_path / "twice", quantize="int8")
    with pytest.raises(CheckpointError, match="groups of 128"):
        convert(DATA, tmp_path / "narrow", quantize="int4")
    assert list(tmp_path.iterdir()) == []


def test_a_scale_that_is_missing_is_named(quantised: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(quantised, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    del tensors["language_model.lm_head.scales"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.scales"):
        instructblip.load(folder, device="cpu")
