"""Random weights at the published model's size, on disk, in LAVIS's layout.

``python -m tests.real_size FOLDER`` writes 17 GB: what loading, converting and a first answer cost
can then be measured without the real weights. The answers are noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ORACLE = Path(__file__).with_name("oracle") / "data"


@dataclass(frozen=True)
class Sizes:
    """The published InstructBLIP with Vicuna-7B."""

    vit: int = 1408
    vit_inner: int = 6144
    blocks: int = 40
    positions: int = 257
    patch: int = 14
    qformer: int = 768
    qformer_inner: int = 3072
    qformer_layers: int = 12
    bert_words: int = 30522
    queries: int = 32
    llm: int = 4096
    llm_inner: int = 11008
    llm_layers: int = 32
    llm_heads: int = 32
    words: int = 32000


def write(folder: Path, sizes: Sizes = Sizes()) -> None:
    """Write all of LAVIS's files; the memory needed is the ViT's 2 GB."""
    torch.manual_seed(0)
    for name in ("vicuna-7b", "bert-base-uncased"):
        (folder / name).mkdir(parents=True)
    _write_vicuna(folder / "vicuna-7b", sizes)
    _write_bert(folder / "bert-base-uncased", sizes)
    torch.save(dict(_eva(sizes)), folder / "eva_vit_g.pth")
    blip = folder / "instruct_blip_vicuna7b_trimmed.pth"
    torch.save({"model": dict(_blip(sizes))}, blip)


def _random(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape).normal_(std=0.02).to(dtype)


def _linear(name: str, out: int, width: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", _random(out, width, dtype=dtype)
    yield f"{name}.bias", torch.zeros(out, dtype=dtype)


def _norm(name: str, width: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", torch.ones(width, dtype=dtype)
    yield f"{name}.bias", torch.zeros(width, dtype=dtype)


def _eva(sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    width, half = sizes.vit, torch.float16
    yield "cls_token", _random(1, 1, width)
    yield "pos_embed", _random(1, sizes.positions, width)
    yield "patch_embed.proj.weight", _random(width, 3, sizes.patch, sizes.patch)
    yield "patch_embed.proj.bias", torch.zeros(width, dtype=half)
    for block in range(sizes.blocks):
        stem = f"blocks.{block}."
        yield from _norm(stem + "norm1", width, half)
        yield stem + "attn.q_bias", torch.zeros(width, dtype=half)
        yield stem + "attn.v_bias", torch.zeros(width, dtype=half)
        yield stem + "attn.qkv.weight", _random(3 * width, width)
        yield from _linear(stem + "attn.proj", width, width, half)
        yield from _norm(stem + "norm2", width, half)
        yield from _linear(stem + "mlp.fc1", sizes.vit_inner, width, half)
        yield from _linear(stem + "mlp.fc2", width, sizes.vit_inner, half)


def _blip(sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    width, full = sizes.qformer, torch.float32
    yield "query_tokens", _random(1, sizes.queries, width, dtype=full)
    yield from _norm("ln_vision", sizes.vit, full)
    stem = "Qformer.bert.embeddings."
    yield stem + "word_embeddings.weight", _random(sizes.bert_words + 1, width, dtype=full)
    yield stem + "position_embeddings.weight", _random(512, width, dtype=full)
    yield from _norm(stem + "LayerNorm", width, full)
    for layer in range(sizes.qformer_layers):
        stem = f"Qformer.bert.encoder.layer.{layer}."
        for kind in ("attention", "crossattention")[: 2 - layer % 2]:
            seen = sizes.vit if kind == "crossattention" else width
            yield from _linear(f"{stem}{kind}.self.query", width, width, full)
            yield from _linear(f"{stem}{kind}.self.key", width, seen, full)
            yield from _linear(f"{stem}{kind}.self.value", width, seen, full)
            yield from _linear(f"{stem}{kind}.output.dense", width, width, full)
            yield from _norm(f"{stem}{kind}.output.LayerNorm", width, full)
        for end in ("", "_query"):
            inner = sizes.qformer_inner
            yield from _linear(f"{stem}intermediate{end}.dense", inner, width, full)
            yield from _linear(f"{stem}output{end}.dense", width, inner, full)
            yield from _norm(f"{stem}output{end}.LayerNorm", width, full)
    yield from _linear("llm_proj", sizes.llm, width, full)


def _write_vicuna(folder: Path, sizes: Sizes) -> None:
    """Two layers a shard, so that little is in memory."""
    weight_map: dict[str, str] = {}
    count = (sizes.llm_layers + 1) // 2 + 1
    for number in range(count):
        name = f"pytorch_model-{number + 1:05}-of-{count:05}.bin"
        layers = range(2 * number, min(2 * number + 2, sizes.llm_layers))
        shard = dict(_ends(sizes) if number == count - 1 else _layers(sizes, layers))
        torch.save(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = json.loads((ORACLE / "vicuna" / "config.json").read_text()) | {
        "hidden_size": sizes.llm, "intermediate_size": sizes.llm_inner, "vocab_size": sizes.words,
        "num_hidden_layers": sizes.llm_layers, "num_attention_heads": sizes.llm_heads,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder / "tokenizer.model", sizes.words)


def _layers(sizes: Sizes, layers: range) -> Iterator[tuple[str, Tensor]]:
    for layer in layers:
        stem = f"model.layers.{layer}."
        for name in "qkvo":
            yield f"{stem}self_attn.{name}_proj.weight", _random(sizes.llm, sizes.llm)
        yield stem + "mlp.gate_proj.weight", _random(sizes.llm_inner, sizes.llm)
        yield stem + "mlp.up_proj.weight", _random(sizes.llm_inner, sizes.llm)
        yield stem + "mlp.down_proj.weight", _random(sizes.llm, sizes.llm_inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{stem}{name}.weight", torch.ones(sizes.llm, dtype=torch.float16)


def _ends(sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    yield "model.embed_tokens.weight", _random(sizes.words, sizes.llm)
    yield "model.norm.weight", torch.ones(sizes.llm, dtype=torch.float16)
    yield "lm_head.weight", _random(sizes.words, sizes.llm)


def _write_tokenizer(path: Path, words: int) -> None:
    """The oracle's SentencePiece model with words added that no text holds."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((ORACLE / "vicuna" / "tokenizer.model").read_bytes())
    for number in range(words - len(model.pieces)):
        model.pieces.add(piece=f"\ue000{number}", score=-1e6, type=1)
    path.write_bytes(model.SerializeToString())


def _write_bert(folder: Path, sizes: Sizes) -> None:
    words = (ORACLE / "bert" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = [word for word in words if word]
    words += [f"[unused{number}]" for number in range(sizes.bert_words - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    heads = sizes.qformer // 64
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": heads}))


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.real_size", description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
