"""Whether LAVIS's files are what they should be and belong together, with the likely cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructblip.checkpoints.configs import model_json
from instructblip.checkpoints.files import Stored, read_tensors
from instructblip.checkpoints.layout import LavisFiles
from instructblip.checkpoints.lineage import WANTED
from instructblip.errors import CheckpointError

# A delta's norm weights are differences, near 0; those of a language model are not.
_DELTA_NORM = 0.05
_SUPPORTED = (
    "Supported: InstructBLIP with Vicuna (instruct_blip_vicuna7b_trimmed.pth, "
    "instruct_blip_vicuna13b_trimmed.pth)."
)


def check_blip(files: LavisFiles, blip: Mapping[str, Stored]) -> None:
    """Refuse checkpoints of other architectures.

    Raises:
        CheckpointError: what was found, and what is supported.
    """
    heads = {name.split(".")[0] for name in blip}
    if any(head.startswith("t5_") for head in heads):
        found = "InstructBLIP or BLIP-2 with FLAN-T5"
    elif any(head.startswith("opt_") for head in heads):
        found = "BLIP-2 with OPT"
    elif "language_model" in heads or "qformer" in heads:
        found = "tensors under transformers' names; give the transformers folder it comes from"
    elif "llm_proj" not in heads and heads & {"vision_proj", "text_proj", "itm_head"}:
        found = "BLIP-2's first stage, without a language model"
    elif not heads & {"llm_proj", "Qformer", "query_tokens"}:
        found = f"weights of another model ({', '.join(sorted(heads)[:4])})"
    else:
        return
    raise CheckpointError(
        f"{files.blip} holds {found}. {_SUPPORTED}", code="checkpoint_kind", name=str(files.blip)
    )


def check_dimensions(where: object, found: Mapping[str, Stored], names: Mapping[str, int]) -> None:
    """Tensors of which sizes are taken have the dimensions that these are taken from.

    Raises:
        CheckpointError: one has others, or none of some dimension.
    """
    for name, count in names.items():
        shape = found[name].shape if name in found else (1,) * count
        if len(shape) != count or 0 in shape:
            raise CheckpointError(
                f"{where} has a tensor {name} of shape {list(shape)}, where {count} dimensions are "
                "needed. It is another model's file: give the one that LAVIS names so.",
                code="checkpoint_tensors",
                name=str(where),
            )


def check_llm_folder(files: LavisFiles) -> dict[str, Any]:
    """The language model's config.json.

    Raises:
        CheckpointError: it is not a LLaMA's, or quantised; what is in its place is named.
    """
    config = model_json(files.vicuna)
    kind = config["model_type"]
    if kind == "llama":
        return config
    if kind == "instructblip":
        why = (
            "is a whole InstructBLIP in transformers' layout, not a language model. "
            f"Give it as --model by itself, or put Vicuna in its place: {WANTED}"
        )
    else:
        why = f"holds a {kind!r} model, not a LLaMA (Vicuna). {WANTED}"
    raise _misfit(files.vicuna, why, "checkpoint_kind")


def check_vocabulary(files: LavisFiles, stored: Stored, words: int) -> None:
    """The language model's rows are its tokenizer's words (and [PAD], in a whole checkpoint).

    Raises:
        CheckpointError: Vicuna v0, or a tokenizer that belongs to another model.
    """
    rows, whole = stored.shape[0], stored.file == files.blip
    if rows == words or (whole and rows == words + 1):
        return
    if rows == words + 1:
        raise _misfit(
            files.vicuna,
            f"is Vicuna v0 (or Alpaca, or another that adds [PAD]): it has {rows} words, one more "
            f"than its tokenizer ({words}). {WANTED}; v0 gives empty or garbled answers. Merge the "
            "delta of version 1.1",
        )
    raise _misfit(
        files.vicuna,
        f"has {rows} words, its tokenizer.model {words}: they belong to two models. "
        "Copy the tokenizer.model that came with the weights",
    )


def check_not_delta(files: LavisFiles, norm: Stored | None, width: int) -> None:
    """A Vicuna delta has the names and shapes of a language model, but is none.

    A norm of another shape than ``[width]`` is not read: a file may say that it has any.

    Raises:
        CheckpointError: the last norm's weights are near 0, as differences are.
    """
    if norm is None or norm.file == files.blip or norm.shape != (width,):
        return
    if float(read_tensors(norm.file)[norm.name].float().abs().mean()) < _DELTA_NORM:
        raise _misfit(
            files.vicuna,
            "holds a delta (differences from LLaMA), not a language model. Merge it first: "
            "python -m instructblip vicuna --base-model-path LLAMA --delta-path DELTA "
            "--target-model-path VICUNA",
        )


def check_widths(
    files: LavisFiles, eva: Mapping[str, Stored], blip: Mapping[str, Stored], rows: Stored
) -> None:
    """ViT, Q-Former and language model fit each other.

    Raises:
        CheckpointError: the 13B file with a 7B Vicuna, or another ViT.
    """
    projection = blip.get("llm_proj.weight")
    if projection is not None and projection.shape[0] != rows.shape[1]:
        raise _misfit(
            files.blip,
            f"belongs to a language model of width {projection.shape[0]}{_size(projection.shape[0])}"
            f", {files.vicuna} has width {rows.shape[1]}{_size(rows.shape[1])}. Give the Vicuna of "
            "the same size, or the other instruct_blip_vicuna*_trimmed.pth",
        )
    norm, token = blip.get("ln_vision.weight"), eva.get("cls_token")
    if norm is not None and token is not None and norm.shape[0] != token.shape[-1]:
        raise _misfit(
            files.eva or files.blip,
            f"is a ViT of width {token.shape[-1]}, {files.blip} wants {norm.shape[0]}. Give the "
            "eva_vit_g.pth that LAVIS fetches",
        )


def _size(width: int) -> str:
    return {4096: " (7B)", 5120: " (13B)"}.get(width, "")


def _misfit(where: object, why: str, code: str = "checkpoint_misfit") -> CheckpointError:
    return CheckpointError(f"{where} {why}.", code=code, name=str(where))
