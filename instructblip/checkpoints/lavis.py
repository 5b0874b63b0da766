"""LAVIS's files → configuration and entries.

Sizes come from the tensors and the two config.json files. What these cannot tell comes from a
config.json beside them, else it is the published model's. LAVIS loads with ``strict=False`` and
never says what is missing; here every tensor is accounted for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.checkpoints.assemble import Entry
from instructblip.checkpoints.configs import (
    ARCHITECTURE,
    bert_values,
    built,
    lavis_sizes,
    llama_values,
    misfit,
)
from instructblip.checkpoints.files import Stored, index
from instructblip.checkpoints.fit import (
    check_blip,
    check_dimensions,
    check_llm_folder,
    check_not_delta,
    check_vocabulary,
    check_widths,
)
from instructblip.checkpoints.kinds import refuse_tensors
from instructblip.checkpoints.lavis_names import (
    BLOCK,
    EVA_PREFIX,
    LLM_PREFIX,
    language_entries,
    qformer_entries,
    unexpected,
    vision_entries,
)
from instructblip.checkpoints.layout import LavisFiles
from instructblip.checkpoints.lineage import CONFIG, Verdict, check_family, check_words, tell
from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.checkpoints.values import read_json
from instructblip.checkpoints.weights import weight_files
from instructblip.errors import CheckpointError

# LAVIS's create_eva_vit_g uses 39 of the file's 40 blocks, with heads of 1408 / 16 = 88.
DEPTH, HEAD_DIM = 39, 88
VIT_EPS, LN_VISION_EPS = 1e-6, 1e-5
MAX_TEXT = 128
END_ID = 2  # </s> of LLaMA's vocabulary; LAVIS makes it bos, eos and unk
_EMBEDDINGS = "model.embed_tokens.weight"
_EVA_DIMENSIONS = {
    "cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2,
}  # fmt: skip
_BLIP_DIMENSIONS = {
    "query_tokens": 3, "llm_proj.weight": 2, "ln_vision.weight": 1,
    "Qformer.bert.embeddings.word_embeddings.weight": 2,
    "Qformer.bert.embeddings.position_embeddings.weight": 2,
    "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight": 2,
}  # fmt: skip
_LLM_DIMENSIONS = {_EMBEDDINGS: 2, "lm_head.weight": 2}
_LAYER = re.compile(r"Qformer\.bert\.encoder\.layer\.(\d+)\.")
_CROSS = re.compile(r"Qformer\.bert\.encoder\.layer\.(\d+)\.crossattention\.self\.key\.weight")


@dataclass(frozen=True, slots=True)
class LavisModel:
    """What LAVIS's files hold: configuration, entries, and names that have no place.

    ``notes`` are doubts that do not forbid it, ``language_model`` is what its files tell of it.
    """

    config: Any
    entries: tuple[Entry, ...]
    unexpected: tuple[str, ...]
    max_text: int
    ln_vision_eps: float
    notes: tuple[str, ...]
    language_model: str


@dataclass(frozen=True, slots=True)
class _Parts:
    """The three parts' tensors by LAVIS's names, and where each lies."""

    eva: Mapping[str, Stored]
    blip: Mapping[str, Stored]
    llm: Mapping[str, Stored]
    files: LavisFiles

    def shape(self, part: str, name: str) -> tuple[int, ...]:
        found: Mapping[str, Stored] = getattr(self, part)
        if name in found:
            return found[name].shape
        where = {"eva": self.files.eva or self.files.blip, "blip": self.files.blip}.get(
            part, self.files.vicuna
        )
        raise CheckpointError(
            f"{where} has no tensor {name}. It is another model's file, or not all of it: fetch it "
            "again.",
            code="checkpoint_tensors",
            name=str(where),
        )


def read_lavis(files: LavisFiles) -> LavisModel:
    """Read names and shapes of all files; no weights yet.

    Raises:
        CheckpointError: a file is unreadable, of another model, or does not fit the others.
    """
    sizes = lavis_sizes(files.sizes)
    llm_config = check_llm_folder(files)
    blip = index([files.blip])
    refuse_tensors(files.blip, blip)
    check_blip(files, blip)
    weights = weight_files(files.vicuna)
    parts = _parts(files, blip, index(weights.files))
    verdict, doubts = _language_model(parts, sizes, llm_config)
    words = _words(parts)
    rows = parts.llm[_EMBEDDINGS]
    check_not_delta(files, parts.llm.get("model.norm.weight"), rows.shape[1])
    check_widths(files, parts.eva, blip, rows)
    config = _config(parts, sizes, llm_config, words)
    tied = llm_config.get("tie_word_embeddings") is True
    entries = [
        *vision_entries(parts.eva, config.vision_config),
        *qformer_entries(blip),
        *language_entries(parts.llm, config.text_config.vocab_size, tied=tied),
    ]
    return LavisModel(
        config,
        tuple(sorted(entries, key=lambda entry: str(entry.file))),
        unexpected(blip, parts.eva),
        sizes.get("max_txt_len", MAX_TEXT),
        sizes.get("ln_vision_eps", LN_VISION_EPS),
        (*weights.notes, *doubts),
        str(verdict),
    )


def _language_model(
    parts: _Parts, sizes: Mapping[str, Any], llm_config: Mapping[str, Any]
) -> tuple[Verdict, list[str]]:
    """Which language model it is by its files, and doubts that do not forbid it.

    Raises:
        CheckpointError: it is known to be none that InstructBLIP was trained on.
    """
    files, trained_on = parts.files, sizes.get("language_model")
    folder = files.vicuna
    verdict = tell(folder, llm_config)
    if parts.llm[_EMBEDDINGS].file == files.blip:  # a whole checkpoint has its own training's
        return verdict, []
    word = verdict.family.word if verdict.family else ""
    then = (
        "Give Vicuna v1.1, or merge its delta: python -m instructblip vicuna. If you trained this "
        f"Q-Former on it yourself, say so in {files.folder / CONFIG}: "
        f'{{"language_model": "{word}"}}.'
    )
    check_family(folder, verdict, then, trained_on)
    note = "" if trained_on else verdict.note()
    return verdict, [f"{folder} {note}"] if note else []


def _parts(files: LavisFiles, blip: Mapping[str, Stored], llm: Mapping[str, Stored]) -> _Parts:
    """The three parts, with the dimensions that sizes are taken from."""
    refuse_tensors(files.vicuna, llm)
    llm = {**llm, **_prefixed(blip, LLM_PREFIX)}
    parts = _Parts(_prefixed(blip, EVA_PREFIX) or _eva(files), blip, llm, files)
    parts.shape("llm", _EMBEDDINGS)
    for where, found, names in (
        (files.eva or files.blip, parts.eva, _EVA_DIMENSIONS),
        (files.blip, blip, _BLIP_DIMENSIONS),
        (files.vicuna, llm, _LLM_DIMENSIONS),
    ):
        check_dimensions(where, found, names)
    return parts


def _words(parts: _Parts) -> int:
    """How many words the language model's tokenizer has; it is LLaMA's, and the model's own."""
    folder = parts.files.vicuna
    tokenizer = Tokenizer(folder / "tokenizer.model")
    check_vocabulary(parts.files, parts.llm[_EMBEDDINGS], tokenizer.size)
    check_words(folder, tokenizer)
    return tokenizer.size


def _eva(files: LavisFiles) -> dict[str, Stored]:
    if files.eva is None:
        raise CheckpointError(files.eva_absent, code="checkpoint_absent", name="eva_vit_g.pth")
    found = index([files.eva])
    return _prefixed(found, EVA_PREFIX) or found


def _prefixed(found: Mapping[str, Stored], prefix: str) -> dict[str, Stored]:
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def _config(parts: _Parts, sizes: Mapping[str, Any], llm: Mapping[str, Any], words: int) -> Any:
    from transformers import InstructBlipConfig

    vision = _vision_config(parts, sizes)
    values = {
        "vision_config": vision,
        "qformer_config": _qformer_config(parts, sizes, vision["hidden_size"]),
        "text_config": _text_config(parts.files.vicuna / CONFIG, llm, words),
        "num_query_tokens": parts.shape("blip", "query_tokens")[1],
        "image_token_index": words + 1,
        "tie_word_embeddings": False,
    }
    config = built(parts.files.blip, lambda: InstructBlipConfig(**values))
    config.architectures = [ARCHITECTURE]
    return config


def _vision_config(parts: _Parts, sizes: Mapping[str, Any]) -> dict[str, Any]:
    vit = sizes["vit"]
    width = parts.shape("eva", "cls_token")[-1]
    patch = parts.shape("eva", "patch_embed.proj.weight")[-1]
    side = math.isqrt(parts.shape("eva", "pos_embed")[1] - 1)
    blocks = [int(m[1]) + 1 for name in parts.eva if (m := BLOCK.match(name))]
    heads = vit.get("num_heads", max(1, width // HEAD_DIM))
    image = sizes.get("image_size", side * patch)
    _check_vit(parts.files, sizes, width, heads, image, patch)
    return {
        "hidden_size": width,
        "intermediate_size": parts.shape("eva", "blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": vit.get("depth", min(DEPTH, max(blocks))),
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": vit.get("layer_norm_eps", VIT_EPS),
        "qkv_bias": "blocks.0.attn.q_bias" in parts.eva,
    }


def _check_vit(
    files: LavisFiles, sizes: Mapping[str, Any], width: int, heads: int, image: int, patch: int
) -> None:
    """The ViT can be built; else the file of sizes is named where the value is its own."""
    if width % heads and "num_heads" in sizes["vit"] and files.sizes:
        why = f"not a divisor of the ViT's width, {width}"
        raise misfit(files.sizes, "vit", "num_heads", heads, why)
    if image < patch and "image_size" in sizes and files.sizes:
        raise misfit(files.sizes, "", "image_size", image, f"less than a patch, {patch}")
    if width % heads or image < patch:
        where = files.eva or files.blip
        raise CheckpointError(
            f"{where} is no ViT that can be built: width {width} for {heads} heads, pictures of "
            f"{image} × {image} in patches of {patch} × {patch}. Give the eva_vit_g.pth that LAVIS "
            "fetches.",
            code="checkpoint_misfit",
            name=str(where),
        )


def _qformer_config(parts: _Parts, sizes: Mapping[str, Any], width: int) -> dict[str, Any]:
    bert_file = parts.files.bert / CONFIG
    bert = bert_values(bert_file, read_json(bert_file))
    layers = {int(m[1]) for name in parts.blip if (m := _LAYER.match(name))}
    crossed = sorted(int(m[1]) for name in parts.blip if (m := _CROSS.match(name)))
    words = parts.shape("blip", "Qformer.bert.embeddings.word_embeddings.weight")
    places = parts.shape("blip", "Qformer.bert.embeddings.position_embeddings.weight")
    inner = parts.shape("blip", "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight")
    heads = bert.get("num_attention_heads", 12)
    if words[1] % heads:
        why = f"not a divisor of the Q-Former's width, {words[1]}"
        raise misfit(bert_file, "", "num_attention_heads", heads, why)
    every = crossed[1] - crossed[0] if len(crossed) > 1 else len(layers)
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": inner[0],
        "hidden_act": bert.get("hidden_act", "gelu"),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": places[0],
        "layer_norm_eps": bert.get("layer_norm_eps", 1e-12),
        "pad_token_id": bert.get("pad_token_id", 0),
        "cross_attention_frequency": sizes.get("cross_attention_freq", every),
        "encoder_hidden_size": width,
    }


def _text_config(path: Path, llm: Mapping[str, Any], words: int) -> dict[str, Any]:
    from transformers import LlamaConfig

    values = llama_values(path, llm) | {"pad_token_id": None}
    return built(path, lambda: LlamaConfig(**values)).to_dict() | {
        "vocab_size": words + 2,  # [PAD], which LAVIS adds, and <image>, which transformers adds
        "pad_token_id": words,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "tie_word_embeddings": False,
    }


def bert_tokenizer(folder: Path, rows: int) -> Any:
    """bert-base-uncased's tokenizer with [DEC], which LAVIS adds (blip2.py, init_tokenizer).

    Raises:
        CheckpointError: no tokenizer, or not the one of a Q-Former with ``rows`` words.
    """
    from transformers import BertTokenizer

    try:
        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever values of unknown origin set off in the library
        raise CheckpointError(
            f"{folder} holds no BERT tokenizer ({error}). Fetch bert-base-uncased again.",
            name=str(folder),
        ) from error
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if len(tokenizer) != rows:
        raise CheckpointError(
            f"{folder} has {len(tokenizer)} words with [DEC], the Q-Former {rows}. Give the "
            "vocabulary of bert-base-uncased (30522 words for the published weights).",
            code="checkpoint_misfit",
            name=str(folder),
        )
    return tokenizer
