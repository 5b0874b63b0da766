"""``python -m instructblip convert``: any layout → one folder that starts at once.

The result is transformers' layout with safetensors in one dtype (the Q-Former in fp32, as LAVIS
runs it), both tokenizers and a properties file. Later starts map it instead of reading it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructblip.arguments import add_place_flags, place_flags
from instructblip.checkpoints.layout import Places, named_places

if TYPE_CHECKING:
    from instructblip.checkpoints.source import Source
    from instructblip.devices import Precision
    from instructblip.properties import Properties


def convert(
    model: str | Path,
    target: Path,
    *,
    dtype: str = "auto",
    places: Places = Places(),  # noqa: B008
    quantize: str | None = None,
    progress: bool = False,
) -> Properties:
    """Write ``model`` as a folder in transformers' layout; it appears whole or not at all.

    Peak memory is one mapped input file and one tensor. Returns the written model's properties.

    Args:
        model: what :func:`instructblip.load` takes.
        target: the new folder.
        dtype: of ViT and language model: fp16, bf16, fp32, or auto, what this machine would run.
        places: parts of LAVIS's layout that lie elsewhere.
        quantize: ``int4`` or ``int8`` stores the language model's linears in 4 or 8 bits.
        progress: show a bar on stderr.

    Raises:
        BadRequest: the target exists.
        CheckpointError: the input does not fit, or the disk is too small.
    """
    from tqdm import tqdm

    from instructblip.checkpoints.assemble import memory_needs
    from instructblip.checkpoints.room import need_disk
    from instructblip.checkpoints.shards import write_shards
    from instructblip.checkpoints.source import open_source
    from instructblip.checkpoints.staging import refuse_existing, staged_folder
    from instructblip.checkpoints.tokenizer import Tokenizer
    from instructblip.devices import Precision, choose_device, choose_dtype

    target = target.expanduser().absolute()
    refuse_existing(target)
    source = open_source(model, places)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    precision = Precision(choose_dtype(dtype, choose_device(), source.parameters))
    Tokenizer(source.tokenizer)  # refuses a wrong file before anything is written
    qformer_tokenizer = source.qformer_tokenizer()
    config, entries = source.config, source.entries
    if quantize is not None:
        from instructblip.checkpoints.quantise import quantised_config, quantised_entries

        config = quantised_config(config, quantize)
        entries = tuple(quantised_entries(config, entries))
    size, _ = memory_needs(entries, precision)
    need_disk(target, size + 2**22, f"The converted model in {target}")
    with staged_folder(target) as folder:
        _write_configs(folder, source, config, precision)
        qformer_tokenizer.save_pretrained(folder / "qformer_tokenizer")
        bar = tqdm(total=size, unit="B", unit_scale=True, desc="Converting", disable=not progress)
        with bar:
            write_shards(folder, entries, precision, done=bar.update)
    return source.properties


def _write_configs(folder: Path, source: Source, config: Any, precision: Precision) -> None:
    from transformers import GenerationConfig

    from instructblip.properties import FILE_NAME, write_properties

    config.dtype = str(precision.main).removeprefix("torch.")
    config.save_pretrained(folder)
    text = config.text_config
    GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    ).save_pretrained(folder)  # fmt: skip
    shutil.copyfile(source.tokenizer, folder / "tokenizer.model")
    # legacy: as the slow tokenizer reads text, which Vicuna was trained on.
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "[PAD]"}
    settings = {
        "tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True,
        "add_eos_token": False, "model_max_length": source.properties.context_length, **special,
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", special)
    write_properties(folder / FILE_NAME, source.properties)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``convert``."""
    parser.add_argument("--model", required=True, help="folder with the files, or a hub name")
    parser.add_argument("--out", required=True, type=Path, help="the new folder")
    parser.add_argument(
        "--dtype", default="auto",
        help="fp16, bf16 or fp32 of ViT and language model; auto: what this machine would run",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", choices=("int4", "int8"),
        help="store the language model's linears in 4 bits, and the 7B model chats in under 8 GB, or "
        "in 8, which an NPU runs as they are",
    )  # fmt: skip
    add_place_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the weights' licence and what to do next."""
    given = named_places(**place_flags(args))
    properties = convert(
        args.model,
        args.out,
        dtype=args.dtype,
        places=given,
        quantize=args.quantize,
        progress=sys.stderr.isatty(),
    )
    if properties.licence:
        print(f"Licence of these weights: {properties.licence}.")
    print(f"Written: {args.out}. Start the page with: bash launch.sh --model {args.out}")
    return 0
