"""LAVIS's files: variants that load, faults that are told with their likely cause."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import instructblip
from instructblip.checkpoints import room
from instructblip.checkpoints.files import read_tensors
from instructblip.checkpoints.source import open_source
from instructblip.errors import OutOfMemory
from instructblip.model import InstructBlip
from tests.instructblip.checkpoints.conftest import change, refused, replace
from tests.tiny import make_checkpoint

BLIP = "instruct_blip_trimmed.pth"
LAST = "pytorch_model-00002-of-00002.bin"
FIRST = "pytorch_model-00001-of-00002.bin"
EMBEDDINGS = "model.embed_tokens.weight"


def load(folder: Path, dtype: str = "fp32") -> InstructBlip:
    return instructblip.load(folder, device="cpu", dtype=dtype)


def same(a: InstructBlip, b: InstructBlip) -> bool:
    x, y = a.weights.state_dict(), b.weights.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def llm_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "vicuna" / FIRST) | read_tensors(folder / "vicuna" / LAST)


def without_shards(folder: Path) -> Path:
    for path in (folder / "vicuna").glob("pytorch_model*"):
        path.unlink()
    return folder / "vicuna"


def test_a_whole_checkpoint_needs_no_vit_file(lavis: Path) -> None:
    before = load(lavis)
    eva, llm = read_tensors(lavis / "eva_vit_g.pth"), llm_tensors(lavis)
    pad = torch.zeros(1, 64, dtype=torch.float16)
    for name in (EMBEDDINGS, "lm_head.weight"):  # LAVIS has added [PAD]
        llm[name] = torch.cat([llm[name], pad])

    def whole(blip: dict) -> None:
        used = {k: v for k, v in eva.items() if not k.startswith(("norm", "head", "blocks.3"))}
        blip.update({f"visual_encoder.{k}": v.clone() for k, v in used.items()})
        blip.update({f"llm_model.{k}": v.clone() for k, v in llm.items()})

    change(lavis / BLIP, whole)
    (lavis / "eva_vit_g.pth").unlink()
    assert same(before, load(lavis))


def test_a_fine_tuned_checkpoint_is_named_by_hand(lavis: Path) -> None:
    before = load(lavis)
    weights = torch.load(lavis / BLIP, weights_only=True)["model"]
    weights["query_tokens"] += 1
    state = {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]},
             "config": {"run": {"task": "vqa"}}, "scaler": {}, "epoch": 3}  # fmt: skip
    torch.save(state, lavis / "checkpoint_best.pth")
    tuned = instructblip.load(
        lavis, device="cpu", dtype="fp32", instruct_blip=lavis / "checkpoint_best.pth"
    )
    change = tuned.weights.query_tokens - before.weights.query_tokens
    assert torch.allclose(change, torch.ones(()), atol=1e-6)


def test_every_file_layout_gives_the_same(lavis: Path) -> None:
    before, llm = load(lavis), llm_tensors(lavis)
    folder = without_shards(lavis)
    single = {k: v.clone() for k, v in llm.items()}
    torch.save(single, folder / "pytorch_model.bin")
    assert same(before, load(lavis))
    save_file(single, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    assert same(before, load(lavis))
    for name in (BLIP, "eva_vit_g.pth"):  # from before torch 1.6
        found = torch.load(lavis / name, weights_only=True)
        replace(lavis / name, found, _use_new_zipfile_serialization=False)
    assert same(before, load(lavis))


def test_without_a_file_of_sizes_the_published_ones_hold(lavis: Path) -> None:
    (lavis / "config.json").unlink()
    source = open_source(lavis)
    assert source.config.vision_config.num_attention_heads == 1  # 88 / 88
    assert source.config.vision_config.num_hidden_layers == 4  # all there are, up to 39
    assert source.config.qformer_config.cross_attention_frequency == 2  # told by the tensors
    assert source.properties.qformer_max_tokens == 128
    assert source.properties.image_size == 224


def test_a_file_of_sizes_is_heeded(lavis: Path) -> None:
    sizes = json.loads((lavis / "config.json").read_text())
    sizes |= {"max_txt_len": 17, "image_size": 112, "ln_vision_eps": 1e-3}
    sizes["vit"] |= {"num_heads": 4, "depth": 2}
    (lavis / "config.json").write_text(json.dumps(sizes))
    model = load(lavis)
    assert len(model.qformer_ids("a " * 40)) == 17
    assert model.weights.vision_model.post_layernorm.eps == 1e-3
    vision = model.weights.config.vision_config
    assert (vision.num_attention_heads, vision.num_hidden_layers) == (4, 2)


def test_positions_are_resized_to_another_picture_size(lavis: Path) -> None:
    """A plane of positions stays a plane; the class token keeps its own."""
    ramp = torch.arange(16.0)[None, :, None].expand(16, 16, 88).reshape(1, 256, 88)

    def plane(eva: dict) -> None:
        eva["pos_embed"] = torch.cat([torch.full((1, 1, 88), 5.0), ramp], dim=1)

    change(lavis / "eva_vit_g.pth", plane)
    sizes = json.loads((lavis / "config.json").read_text()) | {"image_size": 112}
    (lavis / "config.json").write_text(json.dumps(sizes))
    found = load(lavis).weights.vision_model.embeddings.position_embedding
    assert found.shape == (1, 65, 88)
    assert (found[0, 0] == 5).all()
    row = found[0, 1:].reshape(8, 8, 88)[3, 2:6, 0]
    assert torch.allclose(row, torch.tensor([4.5, 6.5, 8.5, 10.5]), atol=1e-4)


def test_vit_and_language_model_in_half_the_qformer_in_fp32(lavis: Path) -> None:
    from PIL import Image

    half, full = load(lavis, "bfloat16"), load(lavis)
    picture = Image.new("RGB", (40, 40), "red")
    parts = half.weights
    assert parts.vision_model.dtype == parts.language_model.dtype == torch.bfloat16
    for tensor in (parts.query_tokens, parts.language_projection.weight, parts.language_projection.bias,
                   *parts.qformer.parameters()):  # fmt: skip
        assert tensor.dtype == torch.float32
    tokens = half.query(half.encode_image(picture), "What is it?")
    assert tokens.dtype == torch.bfloat16
    wanted = full.query(full.encode_image(picture), "What is it?")
    assert (tokens.float() - wanted).abs().max() < 0.05 * wanted.abs().max()
    # Stored in fp32, so nothing may have been lost on the way.
    stored = torch.load(lavis / BLIP, weights_only=True)["model"]["llm_proj.weight"]
    assert torch.equal(parts.language_projection.weight, stored)


# Faults


def test_a_13b_file_with_a_7b_vicuna(lavis: Path) -> None:
    def wide(blip: dict) -> None:
        blip["llm_proj.weight"], blip["llm_proj.bias"] = torch.zeros(5120, 64), torch.zeros(5120)

    change(lavis / BLIP, wide)
    said = refused(lavis)
    assert "5120 (13B)" in said
    assert "64" in said
    assert "same size" in said


def test_vicuna_v0_is_recognised_by_its_extra_word(lavis: Path) -> None:
    extra = torch.zeros(1001, 64, dtype=torch.float16)
    change(lavis / "vicuna" / FIRST, lambda w: w.update({EMBEDDINGS: extra}))
    change(lavis / "vicuna" / LAST, lambda w: w.update({"lm_head.weight": extra.clone()}))
    said = refused(lavis)
    assert "Vicuna v0" in said
    assert "v1.1" in said


def test_a_tokenizer_of_another_model(lavis: Path) -> None:
    cut = torch.zeros(900, 64, dtype=torch.float16)
    change(lavis / "vicuna" / FIRST, lambda w: w.update({EMBEDDINGS: cut}))
    assert "two models" in refused(lavis)


def test_a_delta_in_vicunas_place(lavis: Path) -> None:
    change(lavis / "vicuna" / LAST, lambda w: w["model.norm.weight"].zero_())
    said = refused(lavis)
    assert "delta" in said
    assert "Merge it first" in said


def test_a_transformers_model_as_the_language_model(lavis: Path) -> None:
    shutil.rmtree(lavis / "vicuna")
    make_checkpoint(lavis / "vicuna-7b")
    assert "whole InstructBLIP in transformers' layout" in refused(lavis)


def test_another_language_model(lavis: Path) -> None:
    path = lavis / "vicuna" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "gpt2"}))
    assert "'gpt2'" in refused(lavis)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("t5_proj.weight", "FLAN-T5"), ("t5_model.shared.weight", "FLAN-T5"),
        ("opt_proj.weight", "BLIP-2 with OPT"), ("vision_proj.weight", "first stage"),
        ("qformer.embeddings.layernorm.weight", "transformers' names"),
    ],
)  # fmt: skip
def test_other_architectures_are_named(lavis: Path, key: str, word: str) -> None:
    def other(blip: dict) -> None:
        for name in [n for n in blip if n.startswith("llm_proj")]:
            del blip[name]
        blip[key] = torch.zeros(1)

    change(lavis / BLIP, other)
    said = refused(lavis)
    assert word in said
    assert "Supported" in said


def test_foreign_weights_are_named(lavis: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, lavis / BLIP)
    assert "another model (conv1)" in refused(lavis)


def test_another_vit(lavis: Path) -> None:
    change(lavis / "eva_vit_g.pth", lambda w: w.update({"cls_token": torch.zeros(1, 1, 1024)}))
    said = refused(lavis)
    assert "width 1024" in said
    assert "wants 88" in said


def test_another_vocabulary_of_the_qformer(lavis: Path) -> None:
    with (lavis / "bert" / "vocab.txt").open("a") as file:
        file.write("zzzq\nzzzr\n")
    said = refused(lavis)
    assert "3008 words" in said
    assert "3006" in said


@pytest.mark.parametrize(
    ("file", "edit", "words"),
    [
        (BLIP, lambda w: w.pop("llm_proj.bias"), ["1 missing", "language_projection.bias"]),
        (BLIP, lambda w: w.update({"lora.a": torch.zeros(1)}), ["1 unexpected", "lora.a"]),
        (BLIP, lambda w: w.update({"ln_vision.bias": torch.zeros(3)}), ["1 misshapen", "[3]", "[88]"]),
        (BLIP, lambda w: w.pop("query_tokens"), ["query_tokens"]),
        ("eva_vit_g.pth", lambda w: w.pop("cls_token"), ["cls_token"]),
        ("eva_vit_g.pth", lambda w: w.pop("blocks.1.attn.v_bias"), ["1 missing", "layers.1.self_attn.qkv.bias"]),
        ("eva_vit_g.pth", lambda w: [w.pop(k) for k in list(w) if k.startswith("blocks.2.norm")], ["4 missing", "…"]),
        (f"vicuna/{LAST}", lambda w: w.pop("model.norm.weight"), ["1 missing", "model.norm.weight"]),
        (f"vicuna/{FIRST}", lambda w: w.pop(EMBEDDINGS), [EMBEDDINGS]),
    ],
)  # fmt: skip
def test_every_tensor_is_accounted_for(lavis: Path, file: str, edit, words: list[str]) -> None:
    change(lavis / file, edit)
    said = refused(lavis)
    for word in words:
        assert word in said


def test_damaged_files_are_named(lavis: Path) -> None:
    for name in (BLIP, "eva_vit_g.pth", f"vicuna/{LAST}"):
        path = lavis / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert "cut short" in refused(lavis)
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        assert str(path) in refused(lavis)
        path.write_bytes(whole)
    (lavis / "vicuna" / LAST).unlink()
    assert LAST in refused(lavis)


@pytest.mark.parametrize("name", ["vicuna/config.json", "bert/config.json", "config.json"])
def test_wrong_json_is_named(lavis: Path, name: str) -> None:
    for text in ("<html>", "[1]"):
        (lavis / name).write_text(text)
        assert name in refused(lavis)


def test_absent_tokenizers_are_named(lavis: Path) -> None:
    (lavis / "bert" / "vocab.txt").unlink()
    assert "bert" in refused(lavis)
    (lavis / "vicuna" / "tokenizer.model").unlink()
    assert "tokenizer.model" in refused(lavis)


def test_too_little_memory_is_said_before_the_load(
    lavis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instructblip.checkpoints import loading

    monkeypatch.setattr(room, "free_memory", lambda: 1_000_000)
    said = refused(lavis)
    assert "of memory" in said
    assert "1.0 MB are free" in said
    monkeypatch.setattr(loading, "free_device_memory", lambda device: 1000)
    with pytest.raises(OutOfMemory, match="--dtype"):
        load(lavis)
