"""Values of configuration files: old forms that load, wrong ones named by file, key and value."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import InstructBlipForConditionalGeneration

import instructblip
from instructblip import cli
from instructblip.checkpoints.configs import LLAMA
from instructblip.checkpoints.source import open_source
from instructblip.checkpoints.values import read_json
from instructblip.errors import CheckpointError
from tests.instructblip.checkpoints.conftest import refused
from tests.llamas import base_and_delta, change_json, linked

TEXT, VISION, QFORMER = "text_config", "vision_config", "qformer_config"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a config.json of its own."""
    made = linked(tiny_folder, tmp_path / "model")
    own(made / "config.json")
    return made


def own(path: Path) -> None:
    """A link becomes a file."""
    text = path.read_text()
    path.unlink()
    path.write_text(text)


def change(path: Path, part: str, **values: Any) -> None:
    """Write keys of an inner object of config.json, or of the whole where ``part`` is empty."""
    if not part:
        return change_json(path, **values)
    inner = json.loads(path.read_text())[part] | values
    return change_json(path, **{part: {k: v for k, v in inner.items() if v is not ...}})


WRONG = [
    (TEXT, "rope_scaling", {"type": "dynamic"}, '{"type": "dynamic"}'),
    (TEXT, "rope_scaling", {"type": "dynamic", "factor": 2.0}, '"dynamic"'),
    (TEXT, "rope_scaling", {"rope_type": "longrope", "factor": 2.0}, '"longrope"'),
    (TEXT, "rope_scaling", {"type": "linear"}, "factor (for type linear)"),
    (TEXT, "rope_scaling", {"factor": "2", "type": "linear"}, '"2"'),
    (TEXT, "rope_scaling", "linear", '"linear"'),
    (TEXT, "rope_parameters", {"rope_type": "llama3", "factor": 8.0}, "low_freq_factor"),
    (TEXT, "rope_theta", "10000", '"10000"'),
    (TEXT, "hidden_size", "32", "without quotes"),
    (TEXT, "num_hidden_layers", "3", '"3"'),
    (TEXT, "num_hidden_layers", 10**9, "1000000000"),
    (TEXT, "num_attention_heads", 3, "not a divisor of text_config.hidden_size = 32"),
    (TEXT, "num_attention_heads", 0, "= 0"),
    (TEXT, "num_attention_heads", -4, "= -4"),
    (TEXT, "num_key_value_heads", 3, "not a divisor of text_config.num_attention_heads = 4"),
    (TEXT, "head_dim", 7, "an even number"),
    (TEXT, "hidden_act", "gelu", '"gelu"'),
    (TEXT, "rms_norm_eps", "1e-6", '"1e-6"'),
    (TEXT, "rms_norm_eps", float("nan"), "NaN"),
    (TEXT, "rms_norm_eps", None, "null"),
    (TEXT, "max_position_embeddings", 2048.5, "2048.5"),
    (TEXT, "vocab_size", True, "true"),
    (TEXT, "pad_token_id", 99999, "beyond the"),
    (TEXT, "tie_word_embeddings", "no", '"no"'),
    (TEXT, "eos_token_id", ["2"], '["2"]'),
    (VISION, "num_attention_heads", 5, "not a divisor of vision_config.hidden_size = 32"),
    (VISION, "image_size", "28", '"28"'),
    (VISION, "image_size", [28, 28], "[28, 28]"),
    (VISION, "patch_size", 56, "wider than image_size = 28"),
    (VISION, "hidden_act", "abacus", '"abacus"'),
    (VISION, "layer_norm_eps", 0, "= 0"),
    (QFORMER, "num_attention_heads", 3, "not a divisor"),
    (QFORMER, "cross_attention_frequency", 0, "= 0"),
    (QFORMER, "position_embedding_type", "relative_key", '"relative_key"'),
    (QFORMER, "pad_token_id", 10**6, "beyond the"),
    ("", "num_query_tokens", "4", '"4"'),
    ("", "text_config", [1], "[1]"),
    ("", "vision_config", "x", '"x"'),
]


@pytest.mark.parametrize(("part", "key", "value", "word"), WRONG, ids=lambda v: f"{v}"[:40])
def test_a_wrong_value_is_named_by_file_key_and_value(
    folder: Path, part: str, key: str, value: object, word: str
) -> None:
    path = folder / "config.json"
    change(path, part, **{key: value})
    with pytest.raises(CheckpointError) as caught:
        open_source(folder)
    said = str(caught.value)
    assert f"{path}: {part + '.' if part else ''}{key}" in said
    assert word in said
    assert "Restore the file" in said
    assert caught.value.code == "checkpoint_value"


OLD = {
    "no architectures": ("", {"architectures": ...}),
    "architectures as one word": ("", {"architectures": "InstructBlipForConditionalGeneration"}),
    "no model_type": ("", {"model_type": ...}),
    "no model_type of the language model": (TEXT, {"model_type": ...}),
    "keys of transformers 4": (
        TEXT,
        {"_name_or_path": "", "torch_dtype": "float16", "return_dict": True, "num_beams": 1,
         "id2label": {"0": "LABEL_0"}, "pruned_heads": {}, "is_decoder": False, "max_length": 20,
         "tf_legacy_loss": False, "use_bfloat16": False, "output_attentions": False},
    ),
    "names of the library's own attributes": (
        TEXT, {"to_dict": 3, "_attn_implementation": "x", "use_return_dict": 1, "id2label": 3},
    ),
    "no padding, as LLaMA's first conversions said it": (TEXT, {"pad_token_id": -1}),
    "no scaling": (TEXT, {"rope_scaling": None, "rope_theta": 10000.0}),
    "absolute positions": (QFORMER, {"position_embedding_type": "absolute", "classifier_dropout": None}),
    "an image token's id": ("", {"image_token_id": 322, "image_token_index": ...}),
    "a dtype that torch has not": ("", {"dtype": "float99"}),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_forms_load_as_before(folder: Path, tiny_folder: Path, name: str) -> None:
    part, values = OLD[name]
    change(folder / "config.json", part, **values)
    ours, plain = (instructblip.load(f, device="cpu", dtype="fp32") for f in (folder, tiny_folder))
    assert same_answers(ours, plain)


def test_no_padding_in_the_old_form_is_none(folder: Path) -> None:
    change(folder / "config.json", TEXT, pad_token_id=-1)
    assert open_source(folder).config.text_config.pad_token_id is None


def same_answers(ours: Any, plain: Any) -> bool:
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        a, b = (m.weights.language_model(input_ids=ids).logits for m in (ours, plain))
    return torch.equal(a, b)


def test_linear_scaling_in_its_old_form_is_transformers_own(folder: Path) -> None:
    change(folder / "config.json", TEXT, rope_scaling={"type": "linear", "factor": 4.0})
    plain = InstructBlipForConditionalGeneration.from_pretrained(folder).language_model.eval()
    ours = instructblip.load(folder, device="cpu", dtype="fp32").weights.language_model
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.allclose(plain(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-5)
    assert ours.model.rotary_emb.inv_freq[0] == 0.25


LAVIS_WRONG = [
    ("vicuna/config.json", {"num_attention_heads": "4"}, 'num_attention_heads = "4"'),
    ("vicuna/config.json", {"num_attention_heads": 5}, "not a divisor of hidden_size = 64"),
    ("vicuna/config.json", {"rope_scaling": {"type": "dynamic"}}, "rope_scaling = "),
    ("vicuna/config.json", {"model_type": ..., "architectures": ...}, "model_type = null"),
    ("bert/config.json", {"num_attention_heads": "12"}, 'num_attention_heads = "12"'),
    ("bert/config.json", {"num_attention_heads": 7}, "not a divisor of the Q-Former's width, 64"),
    ("config.json", {"image_size": 3}, "image_size = 3 is wrong: less than a patch"),
    ("bert/config.json", {"layer_norm_eps": "1e-12"}, 'layer_norm_eps = "1e-12"'),
    ("bert/config.json", {"hidden_act": 3}, "hidden_act = 3"),
    ("bert/config.json", {"pad_token_id": [0]}, "pad_token_id = [0]"),
    ("config.json", {"max_txt_len": "128"}, 'max_txt_len = "128"'),
    ("config.json", {"image_size": 0}, "image_size = 0"),
    ("config.json", {"ln_vision_eps": "x"}, 'ln_vision_eps = "x"'),
    ("config.json", {"vit": [3]}, "vit = [3]"),
    ("config.json", {"vit": {"depth": "3"}}, 'vit.depth = "3"'),
    ("config.json", {"vit": {"num_heads": 0}}, "vit.num_heads = 0"),
    (
        "config.json",
        {"vit": {"num_heads": 7}},
        "vit.num_heads = 7 is wrong: not a divisor of the ViT's width, 88",
    ),
    ("config.json", {"cross_attention_freq": 0}, "cross_attention_freq = 0"),
]


@pytest.mark.parametrize(("file", "values", "word"), LAVIS_WRONG, ids=lambda v: f"{v}"[:40])
def test_a_wrong_value_beside_laviss_files_is_named(
    lavis: Path, file: str, values: dict[str, Any], word: str
) -> None:
    change_json(lavis / file, **values)
    said = refused(lavis)
    assert word in said
    assert str(lavis / file) in said


def test_padding_beyond_the_words_is_laviss_own_and_loads(lavis: Path) -> None:
    change_json(lavis / "vicuna" / "config.json", pad_token_id=32000, vocab_size=1000)
    assert instructblip.load(lavis, device="cpu").weights.config.text_config.pad_token_id == 1000


@pytest.mark.parametrize("side", ["llama-7b", "delta"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("rope_scaling", {"type": "dynamic"}), ("num_hidden_layers", "2"), ("num_attention_heads", 5),
     ("rms_norm_eps", None), ("hidden_size", 0)],
)  # fmt: skip
def test_a_merge_names_a_wrong_value(
    tmp_path: Path, capsys, side: str, key: str, value: object
) -> None:
    base, delta = base_and_delta(tmp_path)
    change_json(tmp_path / side / "config.json", **{key: value})
    flags = ["--base", str(base), "--delta", str(delta), "--target", str(tmp_path / "out")]
    assert cli.main(["vicuna", *flags]) == 1
    assert f"{tmp_path / side / 'config.json'}: {key} = " in capsys.readouterr().err


def test_a_head_that_is_missing_is_not_taken_from_the_embedding(lavis: Path) -> None:
    """Only a model that says so has one matrix for both."""
    from tests.instructblip.checkpoints.conftest import change as change_weights

    last = lavis / "vicuna" / "pytorch_model-00002-of-00002.bin"
    first = lavis / "vicuna" / "pytorch_model-00001-of-00002.bin"
    for shard in (first, last):
        change_weights(shard, lambda w: w.pop("lm_head.weight", None))
    assert "1 missing (language_model.lm_head.weight)" in refused(lavis)
    change_json(lavis / "vicuna" / "config.json", tie_word_embeddings=True)
    instructblip.load(lavis, device="cpu")


def test_properties_of_another_picture_size_are_named(folder: Path) -> None:
    own(folder / "properties.json")
    change_json(folder / "properties.json", image_size=56)
    assert "56 pixels" in refused(folder)


def test_integers_in_the_place_of_floats_are_named(folder: Path, tiny_folder: Path) -> None:
    tensors = load_file(tiny_folder / "model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    (folder / "model.safetensors").unlink()
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors")
    assert f"1 of integers, as of quantised weights ({name} torch.int8)" in refused(folder)


# --- any value at all ------------------------------------------------------------------------------

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["2", "1e-6", "linear", "dynamic", 10**400, -1, 0, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=6) | st.sampled_from(["type", "rope_type", "factor", "rope_theta"]),
        inner, max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from([(TEXT, key) for key in (*LLAMA, "rope_scaling", "rope_parameters", "rope_theta")]
    + [(VISION, k) for k in ("hidden_size", "image_size", "patch_size", "hidden_act", "layer_norm_eps",
                             "num_attention_heads", "num_hidden_layers", "qkv_bias", "mlp_ratio")]
    + [(QFORMER, k) for k in ("hidden_size", "vocab_size", "cross_attention_frequency", "hidden_act",
                              "encoder_hidden_size", "num_attention_heads", "id2label")]
    + [("", k) for k in ("text_config", "vision_config", "qformer_config", "num_query_tokens",
                         "image_token_index", "architectures", "model_type", "torch_dtype",
                         "quantization_config", "tie_word_embeddings", "instructblip_quantised")])  # fmt: skip


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@example(where=("", "architectures"), value=["\x1f"])
@given(where=KEYS, value=ANY)
def test_any_value_loads_or_is_refused_in_words(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, where: tuple[str, str], value: Any
) -> None:
    made = linked(tiny_folder, tmp_path_factory.mktemp("any") / "model")
    path = made / "config.json"
    own(path)
    change(path, where[0], **{where[1]: value})
    try:
        open_source(made)
    except CheckpointError as error:
        said = str(error)
        assert said.isprintable()
        if error.code == "checkpoint_value":
            assert str(path) in said
            assert where[1] in said or "no model that can be built" in said
    finally:
        shutil.rmtree(made.parent)


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"[1]", b"\xff\xfe{}", b'{"a":' * 100_000, b"[" * 100_000, b"9" * 5000, b"\0"],
    ids=lambda content: f"{content[:8]!r} x {len(content)}",
)
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not (JSON|a JSON object)") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}')
    assert read_json(tmp_path / "config.json") == {"a": 1}
