"""Our ViT, Q-Former, projection and first logits against LAVIS's, in fp32 on a CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instructblip.images import open_as_lavis
from instructblip.model import InstructBlip

DATA = Path(__file__).with_name("data")
CASES = {c["id"]: c for c in json.loads((DATA / "expected.json").read_text())["cases"]}
PICTURES = sorted(path.name for path in (DATA / "images").iterdir())
FEATURES, LOGITS = 1e-4, 1e-3  # absolute tolerances of the reference


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def pairs(model: InstructBlip, case: dict[str, Any]) -> list[torch.Tensor]:
    """Image tokens of each picture with its prompt; a video's frames share one prompt."""
    pictures = [open_as_lavis(DATA / "images" / name) for name in case["images"]]
    prompts = case["prompts"] * (len(pictures) if case.get("video") else 1)
    return [
        model.query(model.encode_image(picture), prompt)
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]


@pytest.mark.parametrize("name", PICTURES)
def test_pixels(model: InstructBlip, tensors: dict[str, torch.Tensor], name: str) -> None:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    resized = tensors[f"image.{name}.resized_u8"].float() / 255
    found = model.pixels(open_as_lavis(DATA / "images" / name))[0]
    assert gap(found, (resized - mean) / std) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_image_embeds(model: InstructBlip, tensors: dict[str, torch.Tensor], name: str) -> None:
    pictures = [open_as_lavis(DATA / "images" / n) for n in CASES[name]["images"]]
    embeds = torch.cat([model.encode_image(picture).embeds for picture in pictures])
    assert gap(embeds, tensors[f"case.{name}.image_embeds"]) < FEATURES


@pytest.mark.parametrize("name", CASES)
def test_image_tokens(model: InstructBlip, tensors: dict[str, torch.Tensor], name: str) -> None:
    tokens = pairs(model, CASES[name])
    joined = torch.cat(tokens)[None] if CASES[name].get("video") else torch.stack(tokens)
    assert gap(joined, tensors[f"case.{name}.llm_proj_output"]) < FEATURES


@pytest.mark.parametrize("name", CASES)
def test_first_logits(model: InstructBlip, tensors: dict[str, torch.Tensor], name: str) -> None:
    case, tokens = CASES[name], pairs(model, CASES[name])
    groups = [torch.cat(tokens)] if case.get("video") else tokens
    words = model.tokenizer.size
    for row, (images, ids, mask) in enumerate(
        zip(groups, case["llm_input_ids"], case["llm_attention_mask"], strict=True)
    ):
        text = model.embed([i for i, seen in zip(ids, mask, strict=True) if seen])
        found = model.weights.language_model(inputs_embeds=torch.cat([images, text])[None]).logits
        wanted = tensors[f"case.{name}.first_step_logits"][row, :words]
        assert gap(found[0, -1, :words], wanted) < LOGITS
