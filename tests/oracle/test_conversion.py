"""LAVIS's layout, converted: plain transformers and ours give LAVIS's logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import InstructBlipForConditionalGeneration

import instructblip
from instructblip.checkpoints.convert import convert
from instructblip.images import open_as_lavis
from instructblip.model import InstructBlip

DATA = Path(__file__).with_name("data")
PICTURE = DATA / "images" / "gradient.png"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "model"
    convert(DATA, target, dtype="fp32")
    return target


def ids_of(model: InstructBlip, prompt: str) -> dict[str, torch.Tensor]:
    image = [model.weights.config.image_token_index] * model.properties.query_tokens
    return {
        "input_ids": torch.tensor([image + model.tokenizer.encode_as_lavis(prompt)]),
        "qformer_input_ids": torch.tensor([model.qformer_ids(prompt)]),
    }


def test_plain_transformers_gives_lavis_logits(
    converted: Path, model: InstructBlip, expected: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    plain, report = InstructBlipForConditionalGeneration.from_pretrained(
        converted, output_loading_info=True
    )
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    prompt = expected["cases"][0]["prompts"][0]
    with torch.inference_mode():
        found = plain.eval()(
            pixel_values=model.pixels(open_as_lavis(PICTURE)), **ids_of(model, prompt)
        ).logits
    words = model.tokenizer.size
    wanted = tensors["case.basic.first_step_logits"][:, :words]
    assert (found[:, -1, :words] - wanted).abs().max() < 1e-3


def test_ours_is_the_same_as_before(converted: Path, model: InstructBlip) -> None:
    again = instructblip.load(converted, device="cpu", dtype="float32")
    assert again.properties == model.properties
    before, after = model.weights.state_dict(), again.weights.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.qformer_ids("[DEC] a cat") == model.qformer_ids("[DEC] a cat")
    picture = open_as_lavis(PICTURE)
    a, b = (m.query(m.encode_image(picture), "What is it?") for m in (model, again))
    assert torch.equal(a, b)


def test_a_folder_in_half_precision_is_mapped_at_the_start(tmp_path: Path) -> None:
    from instructblip.checkpoints.assemble import memory_needs
    from instructblip.checkpoints.source import open_source
    from instructblip.devices import Precision

    convert(DATA, tmp_path / "half", dtype="bf16")
    source = open_source(tmp_path / "half")
    assert memory_needs(source.entries, Precision(torch.bfloat16))[1] == 0
    model = instructblip.load(tmp_path / "half", device="cpu", dtype="bf16")
    assert model.weights.qformer.dtype == torch.float32
    assert model.dtype == torch.bfloat16
