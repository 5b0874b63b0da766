"""LAVIS's own answers on its checkpoint: ids, texts, rankings and losses of every case."""

import json
from pathlib import Path
from typing import Any

import pytest

import instructblip
from instructblip.images import open_as_lavis
from instructblip.model import InstructBlip

DATA = Path(__file__).with_name("data")
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads((DATA / "expected.json").read_text())["cases"]
}
GENERATED = [
    (name, kind)
    for name, case in CASES.items()
    for kind in ("greedy", *case.get("generate", {}))
    if kind != "greedy" or "greedy" in case
]
RANKED = [(n, k) for n, case in CASES.items() for k in case if k.startswith("predict_class")]
ANSWERED = [name for name, case in CASES.items() if "predict_answers" in case]


@pytest.fixture(scope="module")
def lavis_model() -> InstructBlip:
    return instructblip.load(DATA, device="cpu", dtype="float32")


def samples(case: dict[str, Any]) -> list[Any]:
    """One picture for each prompt, or the frames of one video."""
    pictures = [open_as_lavis(DATA / "images" / name) for name in case["images"]]
    return [pictures] if case.get("video") else pictures


def up_to_the_end(ids: list[int]) -> list[int]:
    """Without the start token and what follows the first end token."""
    assert ids[0] == 1
    ids = ids[1:]
    return ids[: ids.index(2) + 1] if 2 in ids else ids


@pytest.mark.parametrize(("name", "kind"), GENERATED)
def test_generate(lavis_model: InstructBlip, name: str, kind: str) -> None:
    case = CASES[name]
    expected = case["greedy"] if kind == "greedy" else case["generate"][kind]
    texts, ids = lavis_model.generate(
        samples(case), case["prompts"], return_ids=True, **expected["params"]
    )
    assert ids == [up_to_the_end(row) for row in expected["ids"]]
    assert texts == expected["text"]


@pytest.mark.parametrize(("name", "kind"), RANKED)
def test_predict_class(lavis_model: InstructBlip, name: str, kind: str) -> None:
    case = CASES[name]
    expected = case[kind]
    ranks, losses = lavis_model.predict_class(
        samples(case), case["prompts"], expected["candidates"], expected["n_segments"]
    )
    assert ranks == expected["ranks"]
    assert losses == [pytest.approx(row, abs=1e-4) for row in expected["losses"]]


@pytest.mark.parametrize("name", ANSWERED)
def test_predict_answers(lavis_model: InstructBlip, name: str) -> None:
    """LAVIS's defaults are ours, so only the prompt is given."""
    case = CASES[name]
    expected = case["predict_answers"]
    texts, ids = lavis_model.predict_answers(
        samples(case), expected["text_input"], prompt=expected["prompt"], return_ids=True
    )
    assert texts == expected["answers"]
    assert ids == [up_to_the_end([2 if i == 0 else i for i in row]) for row in expected["raw_ids"]]


def test_no_kind_of_result_is_left_out() -> None:
    known = {"greedy", "generate", "predict_class", "predict_class_2seg", "predict_answers"}
    about = {"id", "images", "prompts", "video", "forward_loss", "qformer_num_tokens_untruncated"}
    masks = {
        f"{which}_{what}"
        for which in ("llm", "qformer")
        for what in ("input_ids", "attention_mask")
    }
    for case in CASES.values():
        assert set(case) <= known | about | masks
    assert len(GENERATED) + len(RANKED) + len(ANSWERED) >= 60
