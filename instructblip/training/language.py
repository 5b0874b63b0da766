"""Tokenizers and the whole model's configuration, written in the real checkpoints' file layout."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    BertTokenizer,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    LlamaConfig,
)

from instructblip.properties import Properties
from instructblip.scenes import compose
from instructblip.training import chinese
from instructblip.training.dialogues import Dialogues, all_names, words_of_grammar
from instructblip.training.speech import OUTSIDE, UNKNOWN_ANSWER
from instructblip.training.vision import vision_config

QUERIES = 24
CONTEXT = 1024
NEW_TOKENS = 96  # of an answer, at most
QFORMER_TOKENS = 64
WIDTH = 192
# Characters of simple Chinese questions, so that later training needs no new vocabulary.
CHINESE = (
    "这是什么图里有几个在哪左右上下中间边角红橙黄绿蓝紫粉棕黑白灰色圆方三星心菱十字环箭头形母数动物水果蔬菜食"
    "车植乐器衣服家用东西吗是不没描述一二四五六七八九大小更比较还和它它们哪个多少样子的了呢只条朵本把辆架艘颗"
    "猫狗马牛猪鼠兔猴狮象企鹅蛙蛇龟鱼鲸章蝴蝶蜜蜂瓢虫头鹰鸭蟹熊苹香蕉草莓菠萝西瓜梨柠檬樱桃胡萝卜玉米辣椒茄蘑"
    "菇比萨汉堡甜甜圈饼干冰淇淋蛋糕公共汽自行飞机火箭帆船拖拉直升消防树棕榈仙人掌郁金香向日葵玫瑰伞铃钥匙钟书灯泡"
    "锤剪刀相机吉他小提琴喇叭鼓鞋帽裙衫眼镜我认识张片请问详细说明种类颜位置"
)
# Came later: read by the Q-Former as characters, by the language model as bytes.
MORE_CHINESE = "两乌也些交体你具到又工最每状看老螃衬通那都青，。？、"


def corpus(seed: int = 0, scenes: int = 6000) -> list[str]:
    """Questions and answers as training meets them, and every name and word."""
    rng = random.Random(seed)
    talks = Dialogues(rng, language=None)
    lines = [OUTSIDE, UNKNOWN_ANSWER, *all_names()]
    for _ in range(scenes):
        for exchange in talks.dialogue(compose(rng), 2):
            lines += [exchange.question, exchange.answer]
    return [*lines, *sorted(words_of_grammar("en"))]


def write_tokenizers(folder: Path) -> None:
    """``tokenizer.model`` with byte fallback, and ``qformer_tokenizer/`` (BERT WordPiece)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, out = corpus(), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=1600, model_type="unigram",
        byte_fallback=True, hard_vocab_limit=False, required_chars="".join(sorted(set(CHINESE))),
        minloglevel=2, num_threads=1, split_digits=True,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "[PAD]"}
    kind = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True,
            "add_eos_token": False, "model_max_length": CONTEXT, **special}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(kind, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    words = sorted({w for line in lines for w in re.findall(r"[a-z]+", line.lower())})
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    signs = list(".,?!'\":;-()/&%")
    table = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        *signs,
    ]
    table += [w for w in words if len(w) > 1] + sorted(set(CHINESE))
    table += sorted(set(MORE_CHINESE) | words_of_grammar("zh"))
    inner = folder / "qformer_tokenizer"
    inner.mkdir(exist_ok=True)
    (inner / "vocab.txt").write_text("\n".join(dict.fromkeys(table)), encoding="utf-8")
    BertTokenizer(str(inner / "vocab.txt"), do_lower_case=True).save_pretrained(inner)


def extend_words(folder: Path) -> None:
    """Give the Q-Former's vocabulary of older weights what came later, at its end."""
    path = folder / "qformer_tokenizer" / "vocab.txt"
    table = path.read_text("utf-8").splitlines()
    known = set(table)
    wanted = sorted(set(CHINESE + MORE_CHINESE) | words_of_grammar("zh")) + sorted(
        word for word in words_of_grammar("en") if len(word) > 1
    )
    missing = [word for word in wanted if word not in known]
    if missing:
        path.write_text("\n".join([*table, *missing]), encoding="utf-8")
        BertTokenizer(str(path), do_lower_case=True).save_pretrained(path.parent)


def build(folder: Path) -> InstructBlipForConditionalGeneration:
    """A fresh model for the tokenizers in ``folder``: 7.5 million parameters or so."""
    size = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "tokenizer.model")
    ).vocab_size()
    words = len((folder / "qformer_tokenizer" / "vocab.txt").read_text("utf-8").splitlines())
    config = InstructBlipConfig(
        vision_config=vision_config().to_dict(),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=words, hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=576, encoder_hidden_size=WIDTH, cross_attention_frequency=2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.04,
            max_position_embeddings=128,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=size + 2, hidden_size=WIDTH, intermediate_size=512, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT,
            bos_token_id=2, eos_token_id=2, pad_token_id=size, tie_word_embeddings=True,
        ).to_dict(),
        num_query_tokens=QUERIES, image_token_index=size + 1, tie_word_embeddings=True,
    )  # fmt: skip
    model = InstructBlipForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens, std=0.3)
    return model


def properties() -> dict[str, object]:
    """The embedded model's properties file."""
    from instructblip.training.about import ABOUT

    values: dict[str, object] = {
        "version": 1, "template": "plain", "layouts": ["append", "keep", "refresh"],
        "default_layout": "append", "query_tokens": QUERIES, "image_size": 112,
        "qformer_text": "question_then_history", "qformer_max_tokens": QFORMER_TOKENS,
        "qformer_truncation": "right", "context_length": CONTEXT, "scenes": True,
        "refusals": {
            "en": [OUTSIDE, UNKNOWN_ANSWER], "zh": [chinese.OUTSIDE, f"{chinese.UNKNOWN}。"],
        },
        "generation": {"max_new_tokens": NEW_TOKENS, "temperature": 0.0, "repetition_penalty": 1.0}, **ABOUT,
    }  # fmt: skip
    assert set(values) - {"version"} <= set(Properties.__dataclass_fields__)
    return values
