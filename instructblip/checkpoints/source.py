"""What a folder holds, whichever its layout: configuration, entries, tokenizers, properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from instructblip.checkpoints.assemble import IGNORED, Entry, check_entries, copied
from instructblip.checkpoints.configs import ARCHITECTURE, instructblip_config, model_json
from instructblip.checkpoints.files import index, is_mappable
from instructblip.checkpoints.hub import hub_folder, is_hub_name, snapshot_of
from instructblip.checkpoints.kinds import describe, refuse_tensors, single_file
from instructblip.checkpoints.lavis import bert_tokenizer, read_lavis
from instructblip.checkpoints.layout import (
    LavisFiles,
    Places,
    find_lavis,
    is_lavis,
    is_transformers,
)
from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.checkpoints.values import inner, shown
from instructblip.checkpoints.weights import weight_files
from instructblip.errors import CheckpointError
from instructblip.properties import FILE_NAME, Properties, official_properties, read_properties

EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "embedded"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint before its weights are read.

    ``where`` is the folder, ``parts`` the files by what they are for; ``tokenizer`` is the
    SentencePiece file; ``qformer_tokenizer`` makes the BERT tokenizer. ``notes`` are what the user
    should know of a model that is loaded all the same; ``language_model`` is what the files of a
    separate one tell of it.
    """

    where: Path
    layout: str
    parts: dict[str, Path]
    config: Any
    entries: tuple[Entry, ...]
    properties: Properties
    tokenizer: Path
    qformer_tokenizer: Callable[[], Any]
    notes: tuple[str, ...] = ()
    language_model: str = ""

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(prod(entry.shape) for entry in self.entries)


def open_source(model: str | Path, places: Places = Places()) -> Source:  # noqa: B008
    """What a model's name or folder holds, checked by names and shapes; no weights are read.

    Args:
        model: ``embedded``, a folder, LAVIS's trimmed file in its folder, or a hub name.
        places: parts of LAVIS's layout that lie elsewhere.

    Raises:
        CheckpointError: no layout of ours, or its files do not fit each other.
    """
    folder, places = _folder(model, places)
    if places == Places() and is_transformers(folder):
        return _open_transformers(folder)
    if is_lavis(folder, places):
        return _open_lavis(folder, find_lavis(folder, places))
    if (folder / "config.json").is_file():
        model_json(folder)  # which says what it lacks
    if kind := describe(folder):
        raise CheckpointError(f"{folder} {kind}", code="checkpoint_kind", name=str(folder))
    raise CheckpointError(
        f"{folder} has no config.json and none of LAVIS's files. Give a folder in transformers' "
        "layout (as Salesforce/instructblip-vicuna-7b has it), one with LAVIS's files side by side "
        "(vicuna*/, bert*/, eva_vit*.pth, instruct_blip*.pth), or 'embedded'.",
        code="checkpoint_absent",
        name=str(folder),
    )


def _folder(model: str | Path, places: Places) -> tuple[Path, Places]:
    if str(model) == "embedded":
        return EMBEDDED, places
    path = Path(model).expanduser()
    if path.is_dir():
        return snapshot_of(path), places
    if path.is_file():  # the trimmed file itself: the rest lies beside it
        _check_trimmed(path)
        given = Places(places.vicuna, places.bert, places.eva, places.instruct_blip or path)
        return path.parent, given
    if is_hub_name(str(model)):
        return hub_folder(str(model)), places
    raise CheckpointError(
        f"There is no folder {path}. Check the path; a hub name has the form owner/name.",
        code="checkpoint_absent",
        name=str(path),
    )


# Beginnings of names in LAVIS's checkpoints, other architectures' among them, which have errors of
# their own; and the endings of such files.
_LAVIS_NAMES = ("Qformer.", "llm_proj.", "t5_", "opt_", "vision_proj.", "itm_head.")
_LAVIS_ENDS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


def _check_trimmed(path: Path) -> None:
    """A file that is given as the model is LAVIS's; its tensors are looked at before its neighbours.

    Raises:
        CheckpointError: what it is instead.
    """
    if path.suffix in _LAVIS_ENDS:
        found = index([path])
        refuse_tensors(path, found)
        if any(name.startswith(_LAVIS_NAMES) for name in found):
            return
    raise CheckpointError(f"{path} {single_file(path)}", code="checkpoint_kind", name=str(path))


def _open_transformers(folder: Path) -> Source:
    config = instructblip_config(folder / "config.json", _checked_config(folder))
    weights = weight_files(folder)
    found = index(weights.files)
    refuse_tensors(folder, found)
    entries = tuple(
        copied(name, stored) for name, stored in found.items() if not name.endswith(IGNORED)
    )
    check_entries(config, entries, (), str(folder))
    words = folder / "tokenizer.model"
    _check_words(words, Tokenizer(words).size, config.text_config.vocab_size)
    return Source(
        folder, "transformers", {file.name: file for file in weights.files}, config, entries,
        _properties(folder, config), words,
        lambda: _qformer_tokenizer(folder, config.qformer_config.vocab_size), weights.notes,
    )  # fmt: skip


def _check_words(file: Path, words: int, rows: int) -> None:
    """Each word that a tokenizer knows has a row in the weights; rows to spare are common."""
    if words > rows:
        raise CheckpointError(
            f"{file} has {words} words, the weights have rows for {rows}: they belong to two models. "
            "Copy the tokenizer that came with the weights.",
            code="checkpoint_misfit",
            name=str(file),
        )


def _open_lavis(folder: Path, files: LavisFiles) -> Source:
    model = read_lavis(files)
    config = model.config
    check_entries(config, model.entries, model.unexpected, str(folder))
    properties = official_properties(
        files.blip.stem.removesuffix("_trimmed"),
        query_tokens=config.num_query_tokens,
        image_size=config.vision_config.image_size,
        context=config.text_config.max_position_embeddings,
        max_text=model.max_text,
        ln_vision_eps=model.ln_vision_eps,
    )
    parts = {"language model": files.vicuna, "vocabulary of the Q-Former": files.bert,
             "ViT": files.eva or files.blip, "Q-Former": files.blip}  # fmt: skip
    return Source(
        folder, "LAVIS", parts, config, model.entries, properties,
        files.vicuna / "tokenizer.model",
        lambda: bert_tokenizer(files.bert, config.qformer_config.vocab_size),
        model.notes, model.language_model,
    )  # fmt: skip


def _checked_config(folder: Path) -> dict[str, Any]:
    config = model_json(folder)
    names = config.get("architectures")
    found = names[0] if isinstance(names, list) and names else config["model_type"]
    text = inner(folder / "config.json", config, "text_config")
    llm = text.get("model_type") or ("llama" if "rms_norm_eps" in text else None)
    if config["model_type"] == "instructblip" and found in (ARCHITECTURE, "instructblip"):
        if llm == "llama":
            return config
    elif config["model_type"] == "llama":
        raise _language_model_alone(folder)
    raise CheckpointError(
        f"{folder} holds {shown(found)} with the language model {shown(llm)}. Supported: {ARCHITECTURE} "
        "with a LLaMA (Vicuna) language model; FLAN-T5 and BLIP-2 are not.",
        code="checkpoint_kind",
        name=str(folder),
    )


def _language_model_alone(folder: Path) -> CheckpointError:
    """The error of a LLaMA given as the model.

    Raises:
        CheckpointError: it has no weights that could be used, whatever it is given as.
    """
    files = weight_files(folder).files
    refuse_tensors(folder, index(file for file in files if is_mappable(file)))
    return CheckpointError(
        f"{folder} is a language model by itself. Give the folder in which it lies beside "
        "bert*/, eva_vit*.pth and instruct_blip*.pth.",
        code="checkpoint_kind",
        name=str(folder),
    )


def _properties(folder: Path, config: Any) -> Properties:
    path = folder / FILE_NAME
    if not path.is_file():
        return official_properties(
            folder.name,
            query_tokens=config.num_query_tokens,
            image_size=config.vision_config.image_size,
            context=config.text_config.max_position_embeddings,
        )
    properties = read_properties(path)
    for what, said, has in (
        ("query tokens", properties.query_tokens, config.num_query_tokens),
        ("pixels a side (image_size)", properties.image_size, config.vision_config.image_size),
    ):
        if said != has:
            raise CheckpointError(
                f"{path} says {said} {what}, the weights have {has}. Restore the file that belongs "
                "to the weights.",
                code="properties",
                name=str(path),
            )
    return properties


def _qformer_tokenizer(folder: Path, rows: int) -> Any:
    from transformers import AutoTokenizer

    inner = folder / "qformer_tokenizer"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            inner, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever values of unknown origin set off in the library
        raise CheckpointError(
            f"{inner} holds no BERT tokenizer ({error}). Fetch the folder again.", name=str(inner)
        ) from error
    _check_words(inner, len(tokenizer), rows)
    return tokenizer
