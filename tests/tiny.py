"""A tiny random InstructBLIP in the real transformers layout, made in a second by the tests."""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    BertTokenizer,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
)

from tests.tiny_picture import picture

__all__ = ["make_checkpoint", "picture"]

SENTENCES = [
    "what is in the picture", "where is the red cat", "how many dogs are there", "a blue circle",
    "is there a green star on the left", "two cats and one dog", "yes no above below right",
]  # fmt: skip


def make_checkpoint(
    folder: Path, *, properties: dict[str, object] | None = None, width: int = 32
) -> Path:
    """Write config, safetensors, both tokenizers and, if given, a properties file.

    ``width``: of the language model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = _llm_tokenizer(folder)
    words = _qformer_tokenizer(folder / "qformer_tokenizer")
    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(_config(size, words, width))
    for parameter in model.parameters():  # transformers' init is too flat for distinct answers
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    if properties is not None:
        (folder / "properties.json").write_text(json.dumps(properties))
    return folder


def _llm_tokenizer(folder: Path) -> int:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, vocab_size=320,
        byte_fallback=True, hard_vocab_limit=False, model_type="bpe",
        minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()


def _qformer_tokenizer(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    letters = list("abcdefghijklmnopqrstuvwxyz?.,")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return len(words)


def _config(llm_vocabulary: int, words: int, width: int) -> InstructBlipConfig:
    # Two rows more than the tokenizer, as the official weights have for [PAD] and <image>.
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        ).to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=words, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, encoder_hidden_size=32, cross_attention_frequency=2,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=llm_vocabulary + 2, hidden_size=width, intermediate_size=2 * width,
            num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=256, bos_token_id=2, eos_token_id=2,
        ).to_dict(),
        num_query_tokens=4,
    )  # fmt: skip
