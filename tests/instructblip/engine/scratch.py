"""The reference of every engine test: transformers over a request's own prompt, from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from instructblip.conversation import ImageSegment, build_prompt
from instructblip.engine.base import Request
from instructblip.images import open_upright
from instructblip.model import InstructBlip

MARGIN = 1e-3  # below it rounding may choose the other of the two best tokens


def embeddings(model: InstructBlip, request: Request, pictures: dict[str, bytes]) -> torch.Tensor:
    """[n, width] of the request's prompt."""
    parts = []
    for segment in build_prompt(request, model.properties, model.vocabulary).segments:
        if isinstance(segment, ImageSegment):
            features = model.encode_image(open_upright(pictures[segment.picture_id]))
            parts.append(model.query(features, segment.qformer_text))
        else:
            parts.append(model.embed(segment.ids))
    return torch.cat(parts)


def check_greedy(
    model: InstructBlip, request: Request, pictures: dict[str, bytes], ids: Sequence[int]
) -> int:
    """Every id is transformers' own choice, or one of its two at a near-tie, where this stops.

    Returns how many ids were compared.
    """
    cache = DynamicCache()
    feed = embeddings(model, request, pictures)
    for n, token in enumerate(ids):
        with torch.inference_mode():
            out = model.weights.language_model(inputs_embeds=feed[None], past_key_values=cache)
            logits = out.logits[0, -1, : model.tokenizer.size].float()
        best = logits.topk(2)
        if float(best.values[0] - best.values[1]) < MARGIN:
            assert token in best.indices.tolist()
            return n
        assert token == int(best.indices[0]), (n, list(ids))
        feed = model.embed([token])
    return len(ids)
