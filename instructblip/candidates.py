"""LAVIS's ``predict_class``: candidates ranked by how likely the model finds them as answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from instructblip.decoder import Decoder, Progress, Work, chunk_tokens
from instructblip.errors import BadParameter
from instructblip.generation import Sample, encode_batch, mismatch, require, room_for, samples_of

if TYPE_CHECKING:
    from instructblip.model import InstructBlip

# Candidates that are scored at once each have their copy of the prompt's keys and values: together
# at most so many positions, which is 2 GB in half precision with Vicuna-7B.
CACHED_TOKENS = 4096


@torch.inference_mode()
def predict_class(
    model: InstructBlip,
    images: Sequence[Sample],
    prompts: str | Sequence[str],
    candidates: Sequence[str] | Sequence[Sequence[str]],
    n_segments: int = 1,
    progress: Progress | None = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """Rank the candidates of each sample (lavis/models/blip2_models/blip2_vicuna_instruct.py).

    A candidate's loss is the sum of its tokens' negative log-likelihoods over the length of the
    padded row that it stands in, less one: LAVIS's mean over a row. ``n_segments`` splits the
    candidates into so many batches, which changes that length only. No end token is counted.

    Args:
        images: for each prompt one picture, or a list of a video's frames.
        prompts: one for each sample, or one for all.
        candidates: for all samples, or a list for each.
        n_segments: from 1 to the number of candidates.
        progress: called after each unit of work; may raise to stop.

    Returns:
        For each sample the indices of its candidates, best first, and their losses in the order
        of ``candidates``.

    Raises:
        BadParameter: no candidates, ``n_segments`` out of range, numbers that differ.
        PictureError: something that is not a PIL picture, or cannot be decoded.
        PromptTooLong: a prompt and a candidate do not fit into the context together.
        DeviceError: the logits are not numbers.
    """
    samples, texts = samples_of(images, prompts)
    lists, shared = _lists(candidates, len(samples))
    rows = [_row(model, *row) for row in zip(samples, texts, lists, strict=True)]
    for row in rows:
        require("n_segments", n_segments, 1, len(row.candidates), whole=True)
    work = Work(progress, sum(row.units for row in rows))
    # Candidates of their own make LAVIS run each sample alone, so without the others' padding.
    padded = max(row.text_length for row in rows)
    losses = []
    for row in rows:
        before = row.image_length + (padded if shared else row.text_length)
        lengths = [before + longest - 1 for longest in _longest(row.candidates, n_segments)]
        sums = _sums(model, row, work)
        losses.append([loss / length for loss, length in zip(sums, lengths, strict=True)])
    ranks = [sorted(range(len(own)), key=own.__getitem__) for own in losses]
    return ranks, losses


@dataclass(frozen=True, slots=True)
class Row:
    """A sample with its candidates' ids; lengths in tokens, ``at_once`` in candidates."""

    frames: Sequence[Image.Image]
    text: str
    candidates: Sequence[Sequence[int]]
    image_length: int
    text_length: int
    chunk: int

    @property
    def at_once(self) -> int:
        """Candidates in one unit of work."""
        longest = max(1, *map(len, self.candidates))
        fit = CACHED_TOKENS // (self.image_length + self.text_length + longest)
        return max(1, min(fit, self.chunk // longest))

    @property
    def units(self) -> int:
        """Each frame twice, for ViT and Q-Former; prefill chunks; groups of candidates."""
        prompt = math.ceil((self.image_length + self.text_length) / self.chunk)
        return 2 * len(self.frames) + prompt + math.ceil(len(self.candidates) / self.at_once)


def _row(
    model: InstructBlip, frames: Sequence[Image.Image], text: str, candidates: Sequence[str]
) -> Row:
    encode = model.tokenizer.encode_as_lavis
    # LAVIS drops a candidate's first id, the </s> that each text begins with.
    ids = [encode(candidate)[1:] for candidate in candidates]
    image_length = len(frames) * model.properties.query_tokens
    text_length = len(encode(text))
    room_for(model, image_length + text_length + max(map(len, ids)) - 1)
    return Row(frames, text, ids, image_length, text_length, chunk_tokens(model.device))


def _lists(
    candidates: Sequence[str] | Sequence[Sequence[str]], samples: int
) -> tuple[list[list[str]], bool]:
    """The candidates of each sample, and whether they are the same ones."""
    if isinstance(candidates, list | tuple):
        if _texts(candidates):
            return [[str(c) for c in candidates]] * samples, True
        if candidates and all(_texts(own) for own in candidates):
            if len(candidates) != samples:
                raise mismatch("lists of candidates", len(candidates), "images", samples)
            return [[str(c) for c in own] for own in candidates], False
    raise BadParameter(
        f"candidates = {repr(candidates)[:80]} is not allowed: give a list of one or more texts, "
        "or such a list for each image.",
        name="candidates",
        value=repr(candidates)[:80],
        low="1",
        high="any number",
    )


def _texts(found: object) -> bool:
    """Whether this is a list of at least one text."""
    return (
        isinstance(found, list | tuple) and bool(found) and all(isinstance(c, str) for c in found)
    )


def _longest(ids: Sequence[Sequence[int]], n_segments: int) -> Iterator[int]:
    """For each candidate the ids of the longest in its segment; the last takes the remainder."""
    size = len(ids) // n_segments
    for segment in range(n_segments):
        end = len(ids) if segment == n_segments - 1 else (segment + 1) * size
        own = ids[segment * size : end]
        yield from [max(map(len, own))] * len(own)


def _sums(model: InstructBlip, row: Row, work: Work) -> list[float]:
    """Each candidate's negative log-likelihood after the prompt, which is run once."""
    decoder = Decoder(model, encode_batch(model, [row.frames], [row.text], work))
    first = decoder.prefill(work)
    sums: list[float] = []
    for start in range(0, len(row.candidates), row.at_once):
        sums += _negative(decoder, first, row.candidates[start : start + row.at_once])
        work.unit()
    return sums


def _negative(decoder: Decoder, first: Tensor, ids: Sequence[Sequence[int]]) -> list[float]:
    """Negative log-likelihoods of some candidates; ``first`` [1, vocabulary] precedes them."""
    longest = max(map(len, ids))
    padded = torch.tensor([[*own, *[0] * (longest - len(own))] for own in ids]).view(len(ids), -1)
    logits = first[:, None].repeat(len(ids), 1, 1)
    if longest > 1:
        # Padding comes last, so nothing that counts can see it.
        logits = torch.cat([logits, decoder.fork(len(ids)).extend(padded[:, :-1])], dim=1)
    likelihoods = logits.log_softmax(-1)
    sums = []
    for row, own in zip(likelihoods, ids, strict=True):
        # A typed [PAD] is no text: LAVIS leaves it out of the loss.
        scored = [float(row[place, i]) for place, i in enumerate(own) if i < row.shape[1]]
        sums.append(-sum(scored))
    return sums
