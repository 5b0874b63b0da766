"""Tiny LLaMAs in transformers' layout: language models, bases and deltas for the tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import _llm_tokenizer

# The first LLaMA's, where they tell which model it is.
LLAMA_1 = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64,
    "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 4,
    "num_hidden_layers": 2, "pad_token_id": 0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "torch_dtype": "float16", "transformers_version": "4.28.1", "use_cache": True,
}  # fmt: skip


def make_llama(folder: Path, seed: int = 1, scale: float = 1.0, **config: Any) -> Path:
    """config.json as transformers 4 wrote it, ``model.safetensors`` in fp16, ``tokenizer.model``.

    ``scale``: of the weights; a delta's are small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = _llm_tokenizer(folder)
    values = LLAMA_1 | {"vocab_size": words} | config
    (folder / "config.json").write_text(json.dumps(values))
    torch.manual_seed(seed)
    sizes = {k: LLAMA_1[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                     "num_attention_heads")}  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(vocab_size=words, **sizes))
    tensors = {
        name: torch.randn(t.shape, dtype=torch.float32).mul(scale / 4).add(scale * (t.dim() == 1)).half()
        for name, t in model.state_dict().items()
    }  # fmt: skip
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def base_and_delta(where: Path, **config: Any) -> tuple[Path, Path]:
    """A LLaMA and a delta that fit each other; ``config`` goes into both."""
    base = make_llama(where / "llama-7b", 1, 1.0, **config)
    return base, make_llama(where / "delta", 2, 0.02, **config)


def change_json(path: Path, **values: Any) -> None:
    """Write some keys of a JSON object; ``...`` takes one away."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    found |= values
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of ``model.safetensors``, in memory."""
    return {name: t.clone() for name, t in load_file(folder / "model.safetensors").items()}


def linked(source: Path, target: Path) -> Path:
    """A copy whose files are links: cheap, and each can be replaced."""
    return Path(shutil.copytree(source, target, copy_function=lambda a, b: Path(b).symlink_to(a)))
