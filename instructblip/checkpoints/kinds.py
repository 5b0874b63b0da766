"""What a file or folder is when it is no checkpoint of ours, and what to do with it.

Told by names and first bytes; nothing is opened further.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from instructblip.checkpoints.values import peek_json
from instructblip.errors import CheckpointError

LORA = "adapter_config.json"
# Names of whole weights and of the indexes of shards, in the order in which transformers looks for
# them. Source: _get_resolved_checkpoint_files of transformers 5's modeling_utils.py.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_LFS = b"version https://git-lfs"
_HTML = (b"<!doctype", b"<html", b"<?xml", b"<head")
_PLAIN = "Give the original weights, in fp16, bf16 or fp32"
_GGUF = (
    "is a GGUF file, which llama.cpp reads, with a language model alone. Give the folder of the "
    "original weights, in transformers' layout"
)
_ARCHIVE = "is an archive. Unpack it, and give the folder that comes out"
# First bytes → what follows the file's name. Sources: the formats' own documents; ggml's, gguf.md.
_MAGIC: Mapping[bytes, str] = {
    b"GGUF": _GGUF,
    b"lmgg": _GGUF.replace("GGUF", "GGML"),
    b"fmgg": _GGUF.replace("GGUF", "GGML"),
    b"tjgg": _GGUF.replace("GGUF", "GGML"),
    b"algg": _GGUF.replace("GGUF", "GGML"),
    b"\x89HDF": f"is an HDF5 file, TensorFlow's weights. {_PLAIN} for PyTorch",
    b"\x1f\x8b": _ARCHIVE,
    b"BZh": _ARCHIVE,
    b"\xfd7zXZ": _ARCHIVE,
    b"7z\xbc\xaf": _ARCHIVE,
    b"Rar!": _ARCHIVE,
    b"\x28\xb5\x2f\xfd": _ARCHIVE,
}
_TAR_AT, _TAR = 257, b"ustar"
# How config.json or a file beside it says that weights are quantised, by the method's word.
_METHODS = {"gptq": "GPTQ", "awq": "AWQ", "bitsandbytes": "bitsandbytes"}
# How GPTQ's and AWQ's first programs said so: a file of their own.
_OWN_FILES = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}
# Endings of tensors' names that such weights have. AWQ's are GPTQ's without g_idx.
_TENSORS = {
    "g_idx": "GPTQ",
    "qweight": "AWQ or GPTQ",
    "qzeros": "AWQ or GPTQ",
    "SCB": "bitsandbytes",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "weight_format": "bitsandbytes",
    "weight_packed": "compressed-tensors",
    "weight_scale": "FP8",
    "weight_scale_inv": "FP8",
}
_BNB_STATE = "quant_state.bitsandbytes"


def file_kind(start: bytes) -> str | None:
    """What a file is, by its first 512 bytes, as the rest of a sentence; None where it may be weights.

    The end of the sentence is what to do.
    """
    lower = start.lstrip().lower()
    if not start:
        return "is empty. Fetch it again"
    if lower.startswith(_LFS):
        return "is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder"
    if lower.startswith(_HTML):
        return (
            "is a web page, not weights. The download was refused or redirected: fetch it again, "
            "logged in if the site asks for it"
        )
    if start[_TAR_AT:].startswith(_TAR):
        return _ARCHIVE
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def first_bytes(path: Path) -> bytes:
    """The first 512 bytes of a regular file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(512)


def single_file(path: Path) -> str:
    """What a file is that was given where a folder is wanted, as the rest of a sentence."""
    try:
        start = first_bytes(path)
    except OSError as error:
        return f"is a file that cannot be read ({error.strerror}). Give a folder."
    if (kind := file_kind(start)) is not None:
        return f"{kind}."
    if path.suffix == ".zip" or (start.startswith(b"PK") and not _is_torch(path)):
        return f"{_ARCHIVE}."
    if path.suffix in (".safetensors", ".bin", ".pth", ".pt", ".json", ".model"):
        return f"is one file of a model. Give the folder in which all of them lie: {path.parent}"
    return "is a file, not a folder with a model. Give the folder."


def _is_torch(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return path.suffix != ".zip"


def describe(folder: Path) -> str | None:
    """What a folder without weights of ours is, as the rest of a sentence; None if nothing is told."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return None
    for tell in (_meta,) if set(NAMES) & set(names) else _FOLDERS:
        if (kind := tell(folder, names)) is not None:
            return kind
    return None


def _hub_cache(folder: Path, names: list[str]) -> str | None:
    models = [name for name in names if name.startswith("models--")]
    if not models:
        return None
    example = models[0].removeprefix("models--").replace("--", "/")
    return (
        f"is a cache of {len(models)} models. Name one of them, as {example}, or give its folder, "
        f"as {folder / models[0]}."
    )


def _lora(folder: Path, names: list[str]) -> str | None:
    if LORA not in names:
        return None
    base = peek_json(folder / LORA).get("base_model_name_or_path")
    of = f" for {base}" if isinstance(base, str) and base.isprintable() else ""
    return (
        f"is a LoRA adapter{of} ({LORA}), not a whole model. Merge it into its base with PEFT's "
        "merge_and_unload, save that, and give the merged folder."
    )


def _gguf(folder: Path, names: list[str]) -> str | None:
    found = [name for name in names if name.lower().endswith((".gguf", ".ggml"))]
    return f"holds {found[0]}, which {_GGUF}." if found else None


def _meta(folder: Path, names: list[str]) -> str | None:
    if not any(
        n.startswith("consolidated.") and n.endswith((".pth", ".safetensors")) for n in names
    ):
        return None
    return (
        "is LLaMA as Meta packs it (consolidated.*.pth). Convert it to transformers' layout first, "
        "with transformers' convert_llama_weights_to_hf.py."
    )


def _other_library(folder: Path, names: list[str]) -> str | None:
    for end, library in ((".h5", "TensorFlow"), (".msgpack", "Flax"), (".onnx", "ONNX")):
        if found := [name for name in names if name.endswith(end)]:
            return f"holds {found[0]}, weights for {library}. {_PLAIN} for PyTorch."
    return None


def _training_state(folder: Path, names: list[str]) -> str | None:
    if not any(n.endswith(".distcp") or n == "zero_to_fp32.py" for n in names):
        return None
    return (
        "holds the parts of a distributed training. Join them to whole weights first, with the "
        "program that wrote them (DeepSpeed's is zero_to_fp32.py)."
    )


def _unfinished(folder: Path, names: list[str]) -> str | None:
    ends = (".incomplete", ".part", ".aria2", ".crdownload", ".download")
    found = [name for name in names if name.endswith(ends)]
    return f"holds {found[0]}: a download that did not end. Fetch it again." if found else None


def _weight_file(folder: Path, names: list[str]) -> str | None:
    ends = (".safetensors", ".bin", ".pth", ".pt")
    found = [name for name in names if name.endswith(ends)]
    if not found:
        return None
    return (
        f"holds {found[0]}, but no weights under the names that transformers gives them "
        "(model.safetensors, pytorch_model.bin, or an index). Rename the file, or fetch the index."
    )


def _processor(folder: Path, names: list[str]) -> str | None:
    if not {"processor_config.json", "preprocessor_config.json"} & set(names):
        return None
    return (
        "is a processor alone (its pictures' settings and tokenizers), without weights. Save the "
        "model into the same folder: model.save_pretrained(FOLDER)."
    )


def _tokenizer(folder: Path, names: list[str]) -> str | None:
    if not {"tokenizer.model", "tokenizer.json", "vocab.txt"} & set(names):
        return None
    return "is a tokenizer alone, without weights. Fetch the whole folder."


def _nested(folder: Path, names: list[str]) -> str | None:
    inner = [folder / name for name in names if (folder / name / "config.json").is_file()]
    if not inner or (folder / "config.json").exists():
        return None
    return f"holds no model itself, but {inner[0]} may. Give the folder of the model."


_FOLDERS: tuple[Callable[[Path, list[str]], str | None], ...] = (
    _hub_cache, _lora, _gguf, _meta, _other_library, _training_state, _unfinished, _weight_file,
    _nested, _processor, _tokenizer,
)  # fmt: skip


def refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose files say that its weights are quantised by another program.

    Raises:
        CheckpointError: the program's name, and what to give instead.
    """
    parts = (config, config.get("text_config"))
    for part in parts:
        said = part.get("quantization_config") if isinstance(part, Mapping) else None
        if said:
            method = _method(said)
            raise quantised(folder, method, "config.json says so under quantization_config")
    for name, method in _OWN_FILES.items():
        if (folder / name).is_file():
            raise quantised(folder, method, f"{name} says so")


def _method(said: Any) -> str:
    word = said.get("quant_method") if isinstance(said, Mapping) else None
    if isinstance(word, str):
        return _METHODS.get(word.lower(), f"{word!r:.40}")
    if isinstance(said, Mapping) and {"load_in_8bit", "load_in_4bit"} & said.keys():
        return "bitsandbytes"
    return "a method of its own"


def refuse_tensors(where: Path, names: Iterable[str]) -> None:
    """Refuse weights that are quantised, or an adapter's, by the names of their tensors.

    Raises:
        CheckpointError: what they are, and what to give instead.
    """
    found = {}
    for name in names:
        if ".lora_" in name or name.startswith("base_model.model."):
            raise CheckpointError(
                f"{where} holds a LoRA adapter's tensors ({name:.80}), not whole weights. Merge it "
                "into its base with PEFT's merge_and_unload, save that, and give the result.",
                code="checkpoint_kind",
                name=str(where),
            )
        end = name.rpartition(".")[2]
        if end in _TENSORS:
            found[end] = name
        elif _BNB_STATE in name:
            found["absmax"] = name
    for end, method in _TENSORS.items():
        if end in found:
            raise quantised(where, method, f"it has tensors as {found[end]:.80}")


def quantised(where: Path, method: str, evidence: str) -> CheckpointError:
    """The error of weights that another program has quantised."""
    return CheckpointError(
        f"{where} holds weights quantised with {method} ({evidence}), which cannot be used here. "
        f"{_PLAIN}; python -m instructblip convert --quantize int4 makes smaller ones of them.",
        code="checkpoint_kind",
        name=str(where),
    )
