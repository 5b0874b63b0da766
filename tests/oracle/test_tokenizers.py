"""Ids of both tokenizers against those of LAVIS's slow ones."""

import json
from pathlib import Path

import pytest

from instructblip.model import InstructBlip

EXPECTED = json.loads((Path(__file__).with_name("data") / "expected.json").read_text())
TEXTS = EXPECTED["tokenizer_cases"]
PROMPTS = [
    (prompt, qformer, qformer_mask, llm, llm_mask)
    for case in EXPECTED["cases"]
    for prompt, qformer, qformer_mask, llm, llm_mask in zip(
        case["prompts"], case["qformer_input_ids"], case["qformer_attention_mask"],
        case["llm_input_ids"], case["llm_attention_mask"], strict=False,
    )
]  # fmt: skip


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: repr(case["text"]))
def test_language_model_ids(model: InstructBlip, case: dict) -> None:
    assert model.tokenizer.encode_as_lavis(case["text"]) == case["llm_input_ids"]


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: repr(case["text"]))
def test_qformer_ids(model: InstructBlip, case: dict) -> None:
    assert model.qformer_ids(case["text"]) == case["qformer_input_ids"]


@pytest.mark.parametrize("row", range(len(PROMPTS)))
def test_prompts_are_cut_as_lavis_cuts_them(model: InstructBlip, row: int) -> None:
    prompt, qformer, qformer_mask, llm, llm_mask = PROMPTS[row]
    words = sum(qformer_mask) - model.properties.query_tokens
    assert model.qformer_ids(prompt) == qformer[:words]
    assert model.tokenizer.encode_as_lavis(prompt) == llm[len(llm) - sum(llm_mask) :]


def test_in_a_chat_typed_special_tokens_stay_text(model: InstructBlip) -> None:
    ids = model.tokenizer.encode("a </s> b <unk>")
    assert not {0, 1, 2} & set(ids)
    assert model.tokenizer.decode(ids) == "a </s> b <unk>"
