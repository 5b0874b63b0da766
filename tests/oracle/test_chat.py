"""The chat's first answer on weights in LAVIS's layout is LAVIS's greedy answer."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip.engine.base import Request
from instructblip.engine.local import LocalEngine
from instructblip.images import open_as_lavis
from instructblip.model import InstructBlip

DATA = Path(__file__).with_name("data")
CASES = {
    c["id"]: c
    for c in json.loads((DATA / "expected.json").read_text())["cases"]
    if "greedy_rp1.5" in c.get("generate", {}) and len(c["images"]) == 1 and c["prompts"][0].strip()
}


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_greedy_with_laviss_penalty(model: InstructBlip, name: str) -> None:
    case = CASES[name]
    wanted = case["generate"]["greedy_rp1.5"]
    data = io.BytesIO()
    open_as_lavis(DATA / "images" / case["images"][0]).save(data, "PNG")
    engine = LocalEngine(model)
    try:
        card = engine.card
        assert (card.default_layout, card.generation.repetition_penalty) == ("refresh", 1.5)
        assert "non-commercial" in card.licence
        engine.register_picture("p", data.getvalue())
        # LAVIS's max_length counts the start token.
        sampling = replace(card.generation, max_new_tokens=wanted["params"]["max_length"] - 1)
        *_, last = engine.submit(Request("r", case["prompts"][0], "p", (), sampling))
    finally:
        engine.close()
    ids = wanted["ids"][0][1:]
    ids = ids[: ids.index(2) + 1] if 2 in ids else ids
    assert list(last.answer_ids) == ids
