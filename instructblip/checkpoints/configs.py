"""config.json → transformers' configurations, from checked values alone.

Sources of keys and defaults: transformers 5's LlamaConfig, InstructBlipVisionConfig,
InstructBlipQFormerConfig and InstructBlipConfig. Bounds are far beyond any published model; they
keep a wrong number from being worked on for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instructblip.checkpoints.kinds import describe, refuse_quantised
from instructblip.checkpoints.lineage import FAMILY_WORDS
from instructblip.checkpoints.values import (
    Want,
    checked,
    inner,
    number,
    read_json,
    shown,
    switch,
    table,
    whole,
    word,
    wrong_value,
)
from instructblip.errors import CheckpointError
from instructblip.quantised import QUANTISED

ARCHITECTURE = "InstructBlipForConditionalGeneration"
_WIDTH, _LAYERS, _HEADS, _WORDS = whole(1, 2**17), whole(1, 200), whole(1, 1024), whole(1, 2**24)
_POSITIONS = whole(1, 2**20)
_EPS = number(0, 1)
# -1 is how LLaMA's first conversions said "none" (salesforce/LAVIS issue 509).
_TOKEN = whole(-1, 2**24, optional=True)

LLAMA: Mapping[str, Want] = {
    "vocab_size": _WORDS,
    "hidden_size": _WIDTH,
    "intermediate_size": whole(1, 2**20),
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": whole(1, 1024, optional=True),
    "head_dim": whole(2, 4096, optional=True),
    # The engine's kernels are SwiGLU's; "swish" is the same function.
    "hidden_act": word({"silu", "swish"}),
    "max_position_embeddings": _POSITIONS,
    "rms_norm_eps": _EPS,
    "pad_token_id": _TOKEN,
    "bos_token_id": _TOKEN,
    "eos_token_id": Want(
        "a whole number, or a list of them",
        lambda v: all(_TOKEN.fits(i) for i in (v if isinstance(v, list) else [v])),
        optional=True,
    ),
    "tie_word_embeddings": switch(),
    "attention_bias": switch(),
    "mlp_bias": switch(),
}
# Position embeddings that do not change with the length of the text: rows of one batch share them.
_ROPE_KINDS = ("default", "linear", "llama3", "yarn")
_ROPE_NUMBERS: Mapping[str, Want] = {
    "factor": number(0, 1e6),
    "rope_theta": number(0, 1e12),
    "original_max_position_embeddings": _POSITIONS,
    "low_freq_factor": number(0, 1e6),
    "high_freq_factor": number(0, 1e6),
    "attention_factor": number(0, 1e6, optional=True),
    "beta_fast": number(0, 1e6, optional=True),
    "beta_slow": number(0, 1e6, optional=True),
    "mscale": number(0, 1e6, optional=True),
    "mscale_all_dim": number(0, 1e6, optional=True),
    "truncate": switch(),
    "partial_rotary_factor": Want("1", lambda v: v == 1),
}
_ROPE_NEEDS = {
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
# What an architecture's name means where model_type is absent.
_MODEL_TYPES = {
    "LlamaForCausalLM": "llama", "LLaMAForCausalLM": "llama", ARCHITECTURE: "instructblip",
}  # fmt: skip
_OLD_ROPE, _NEW_ROPE = "rope_scaling", "rope_parameters"

SIDE = whole(1, 8192)  # of a picture, or of a patch of it, in pixels


def _activation() -> Want:
    from transformers.activations import ACT2FN

    return word(ACT2FN)


def _vision_wants() -> Mapping[str, Want]:
    return {
        "hidden_size": _WIDTH,
        "intermediate_size": whole(1, 2**20),
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "image_size": SIDE,
        "patch_size": SIDE,
        "hidden_act": _activation(),
        "layer_norm_eps": _EPS,
        "qkv_bias": switch(),
    }


def _qformer_wants() -> Mapping[str, Want]:
    return {
        **BERT,
        "vocab_size": _WORDS,
        "hidden_size": _WIDTH,
        "intermediate_size": whole(1, 2**20),
        "num_hidden_layers": _LAYERS,
        "hidden_act": _activation(),
        "max_position_embeddings": _POSITIONS,
        "cross_attention_frequency": whole(1, 200),
        "encoder_hidden_size": _WIDTH,
    }


# What LAVIS's layout takes from bert-base-uncased's config.json.
BERT: Mapping[str, Want] = {
    "num_attention_heads": _HEADS,
    "layer_norm_eps": _EPS,
    "pad_token_id": _TOKEN,
    "position_embedding_type": word({"absolute"}, optional=True),
}
_TOP: Mapping[str, Want] = {
    "num_query_tokens": whole(1, 4096),
    "image_token_index": whole(0, 2**24, optional=True),
    "image_token_id": whole(0, 2**24, optional=True),
    "tie_word_embeddings": switch(),
}


_SIZES: Mapping[str, Want] = {
    "max_txt_len": whole(1, 2**16),
    "image_size": SIDE,
    "ln_vision_eps": _EPS,
    "cross_attention_freq": whole(1, 200),
    "language_model": word(FAMILY_WORDS),
}
_VIT: Mapping[str, Want] = {"depth": _LAYERS, "num_heads": _HEADS, "layer_norm_eps": _EPS}


def model_json(folder: Path) -> dict[str, Any]:
    """config.json of a folder in transformers' layout, with the ``model_type`` that it means.

    Raises:
        CheckpointError: it is not there or not JSON: what the folder is instead, where that can be
            told; or its weights are quantised by another program.
    """
    path = folder / "config.json"
    if not path.is_file() and (kind := describe(folder)):
        raise CheckpointError(f"{folder} {kind}", code="checkpoint_kind", name=str(folder))
    config = read_json(path)
    refuse_quantised(folder, config)
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else names
    by_parts = "instructblip" if "qformer_config" in config else ""
    kind = config.get("model_type") or _MODEL_TYPES.get(str(first), by_parts)
    if not isinstance(kind, str) or not kind:
        raise wrong_value(path, "model_type", config.get("model_type"), "the model's kind")
    return config | {"model_type": kind}


def bert_values(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the Q-Former takes from bert-base-uncased's configuration.

    Raises:
        CheckpointError: a value is wrong.
    """
    return checked(path, raw, {**BERT, "hidden_act": _activation()})


def lavis_sizes(path: Path | None) -> dict[str, Any]:
    """The file of sizes beside LAVIS's files, checked; ``vit`` is an object of it.

    Raises:
        CheckpointError: a value is wrong.
    """
    if path is None:
        return {"vit": {}}
    raw = read_json(path)
    return checked(path, raw, _SIZES) | {"vit": checked(path, inner(path, raw, "vit"), _VIT, "vit")}


def llama_values(path: Path, raw: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """LlamaConfig's arguments, from a config.json of a LLaMA or a part of one.

    A padding's id beyond the vocabulary is let pass, which only a model that is run has to mind.

    Raises:
        CheckpointError: a value is wrong, or values do not go together.
    """
    values = checked(path, raw, LLAMA, inside)
    values[_NEW_ROPE] = _rope(path, raw, inside)
    heads = values.get("num_attention_heads", 32)
    _divides(
        path, inside, "num_attention_heads", heads, values.get("hidden_size", 4096), "hidden_size"
    )
    _divides(
        path, inside, "num_key_value_heads", values.get("num_key_value_heads") or heads, heads,
        "num_attention_heads",
    )  # fmt: skip
    if values.get("head_dim") is None:
        values.pop("head_dim", None)
        width = values.get("hidden_size", 4096) // heads
        if width % 2:
            raise misfit(
                path, inside, "num_attention_heads", heads,
                f"heads of {width} numbers, which is odd and cannot be turned in pairs",
            )  # fmt: skip
    elif values["head_dim"] % 2:
        raise wrong_value(path, _full(inside, "head_dim"), values["head_dim"], "an even number")
    if values.get("pad_token_id") == -1:
        values["pad_token_id"] = None
    return values


def _rope(path: Path, raw: Mapping[str, Any], inside: str) -> dict[str, Any]:
    """The position embedding: transformers 5's ``rope_parameters``, or what was said before it."""
    own = {"rope_theta": number(0, 1e12), _OLD_ROPE: table(optional=True),
           _NEW_ROPE: table(optional=True)}  # fmt: skip
    given = checked(path, raw, own, inside)
    key = _OLD_ROPE if given.get(_OLD_ROPE) else _NEW_ROPE
    said = given.get(key) or {}
    kind = said.get("rope_type", said.get("type", "default"))
    where = _full(inside, key)
    if kind not in _ROPE_KINDS:
        raise wrong_value(
            path, where, said, f"a position embedding of type {', '.join(_ROPE_KINDS[:-1])} or "
            f"{_ROPE_KINDS[-1]}",
        )  # fmt: skip
    values = checked(path, said, _ROPE_NUMBERS, where)
    for need in _ROPE_NEEDS.get(kind, ()):
        if need not in values:
            raise wrong_value(path, where, said, f"{need} (for type {kind})")
    theta = values.get("rope_theta", given.get("rope_theta", 10000.0))
    return {**values, "rope_type": kind, "rope_theta": float(theta)}


def instructblip_config(path: Path, raw: Mapping[str, Any]) -> Any:
    """InstructBlipConfig with a LLaMA, from a config.json in transformers' layout.

    Raises:
        CheckpointError: a value is wrong, or values do not go together.
    """
    from transformers import InstructBlipConfig

    top = checked(path, raw, _TOP)
    vision = checked(path, inner(path, raw, "vision_config"), _vision_wants(), "vision_config")
    qformer = checked(path, inner(path, raw, "qformer_config"), _qformer_wants(), "qformer_config")
    text = llama_values(path, inner(path, raw, "text_config"), "text_config")
    _check_tower(path, "vision_config", vision, 16, 1408)
    _check_tower(path, "qformer_config", qformer, 12, 768)
    _inside_words(path, "qformer_config", {"vocab_size": 30522, **qformer})
    _inside_words(path, "text_config", {"vocab_size": 32000, **text})
    _check_patches(path, vision)
    qformer.pop("position_embedding_type", None)
    top.setdefault("image_token_index", top.pop("image_token_id", None))
    if QUANTISED in raw:
        top[QUANTISED] = raw[QUANTISED]
    config = built(
        path,
        lambda: InstructBlipConfig(
            vision_config=vision, qformer_config=qformer,
            text_config={"model_type": "llama", **text}, **top,
        ),
    )  # fmt: skip
    config.architectures = [ARCHITECTURE]
    return config


def _check_patches(path: Path, vision: Mapping[str, Any]) -> None:
    side, patch = vision.get("image_size", 224), vision.get("patch_size", 14)
    if patch > side:
        raise misfit(
            path, "vision_config", "patch_size", patch, f"patches wider than image_size = {side}"
        )


def _check_tower(
    path: Path, inside: str, values: Mapping[str, Any], heads: int, width: int
) -> None:
    """ViT or Q-Former; ``heads`` and ``width`` are its defaults."""
    count = values.get("num_attention_heads", heads)
    wide = values.get("hidden_size", width)
    _divides(path, inside, "num_attention_heads", count, wide, "hidden_size")


def _divides(path: Path, inside: str, key: str, count: int, whole_: int, of: str) -> None:
    if whole_ % count:
        raise misfit(path, inside, key, count, f"not a divisor of {_full(inside, of)} = {whole_}")


def _inside_words(path: Path, inside: str, values: Mapping[str, Any]) -> None:
    """The padding's id is a row of the embedding, which the library insists on."""
    words, pad = values["vocab_size"], values.get("pad_token_id")
    if pad is not None and pad >= words:
        raise misfit(path, inside, "pad_token_id", pad, f"beyond the {words} words of vocab_size")


def _full(inside: str, key: str) -> str:
    return f"{inside}.{key}" if inside else key


def misfit(path: Path, inside: str, key: str, value: object, why: str) -> CheckpointError:
    """The error of a value that is possible, but not beside others; ``inside`` is its object's key."""
    return CheckpointError(
        f"{path}: {_full(inside, key)} = {shown(value)} is wrong: {why}. Restore the file that "
        "belongs to the weights, or mend the value.",
        code="checkpoint_value",
        name=str(path),
    )


def built(path: Path, make: Callable[[], Any]) -> Any:
    """What ``make`` makes of a file's values.

    Raises:
        CheckpointError: the library refuses them, in its own words.
    """
    try:
        return make()
    except CheckpointError:
        raise
    except Exception as error:  # whatever values of unknown origin set off in the library
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{path} describes no model that can be built ({reason}). Restore the file that belongs "
            "to the weights.",
            code="checkpoint_value",
            name=str(path),
        ) from error
