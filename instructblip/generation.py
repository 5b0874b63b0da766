"""LAVIS's ``generate`` and ``predict_answers`` on our model.

Source of the rules: lavis/models/blip2_models/blip2_vicuna_instruct.py over transformers 4.28 to
4.33. Random numbers are our own: sampling follows LAVIS's distribution, not its draws. Unlike
LAVIS's, an answer ends where the context does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, TypedDict

import torch
from PIL import Image
from torch import Tensor

from instructblip.beams import Rules, make_chooser
from instructblip.decoder import Decoder, Progress, PromptBatch, Work
from instructblip.errors import BadParameter, PictureError, PromptTooLong

if TYPE_CHECKING:
    from instructblip.model import InstructBlip

Sample = Image.Image | Sequence[Image.Image]

_WHOLE: dict[str, tuple[int, int]] = {
    "num_beams": (1, 64),
    "max_length": (2, 32_768),
    "min_length": (0, 32_768),
    "num_captions": (1, 64),
    "seed": (0, 2**63 - 1),
}
_REAL: dict[str, tuple[float, float]] = {
    "top_p": (0.0, 1.0),
    "repetition_penalty": (0.1, 10.0),
    "length_penalty": (-10.0, 10.0),
    "temperature": (0.01, 100.0),
}


class GenerationOptions(TypedDict, total=False):
    """The keywords of :class:`GenerationParams`."""

    use_nucleus_sampling: bool
    num_beams: int
    max_length: int
    min_length: int
    top_p: float
    repetition_penalty: float
    length_penalty: float
    num_captions: int
    temperature: float
    seed: int | None


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """LAVIS's parameters with its defaults.

    ``max_length`` and ``min_length`` count a start token that is never seen and, for the first,
    the end token: 256 means at most 255 new tokens. ``top_p`` and ``temperature`` matter with
    ``use_nucleus_sampling`` only, ``length_penalty`` with more than one beam only. ``seed`` is
    ours: with it, sampling repeats.
    """

    use_nucleus_sampling: bool = False
    num_beams: int = 5
    max_length: int = 256
    min_length: int = 1
    top_p: float = 0.9
    repetition_penalty: float = 1.5
    length_penalty: float = 1.0
    num_captions: int = 1
    temperature: float = 1.0
    seed: int | None = None

    def checked(self) -> GenerationParams:
        """Return self, or raise :class:`BadParameter` naming the field and its range."""
        for name, (least, most) in _WHOLE.items():
            require(name, getattr(self, name), least, most, whole=True, optional=name == "seed")
        for name, (low, high) in _REAL.items():
            require(name, getattr(self, name), low, high)
        require("min_length", self.min_length, 0, self.max_length, whole=True)
        if self.num_beams > 1 or not self.use_nucleus_sampling:
            # Each caption is a beam of its own, except where rows are sampled one by one.
            require("num_captions", self.num_captions, 1, self.num_beams, whole=True)
        return self

    def rules(self, end_id: int, room: int) -> Rules:
        """The chooser's rules for a prompt that leaves room for so many tokens."""
        beams = self.num_beams > 1
        return Rules(
            end_id=end_id,
            width=self.num_beams if beams else self.num_captions,
            max_length=min(self.max_length, room + 1),
            min_length=self.min_length,
            repetition_penalty=self.repetition_penalty,
            length_penalty=self.length_penalty,
            keep=self.num_captions if beams else 1,
            sampling=self.use_nucleus_sampling,
            top_p=self.top_p,
            temperature=self.temperature,
            seed=self.seed,
        )


def require(
    name: str,
    value: object,
    low: float,
    high: float,
    *,
    whole: bool = False,
    optional: bool = False,
) -> None:
    """Raise :class:`BadParameter` with the range unless ``value`` is a number in it."""
    if optional and value is None:
        return
    kinds = int if whole else int | float
    number = isinstance(value, kinds) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        kind = "whole number" if whole else "number"
        raise BadParameter(
            f"{name} = {value!r} is not allowed: use a {kind} from {low:g} to {high:g}.",
            name=name,
            value=repr(value),
            low=f"{low:g}",
            high=f"{high:g}",
        )


@torch.inference_mode()
def generate_ids(
    model: InstructBlip, batch: PromptBatch, params: GenerationParams, work: Work | None = None
) -> list[list[int]]:
    """Generated ids as the model chose them, ``num_captions`` answers for each prompt.

    The start token is left out; the end token is the last id where one came. Where the context is
    nearly full, the answer ends with it.

    Raises:
        BadParameter: a value outside its range.
        PromptTooLong: a prompt leaves no room in the context.
        DeviceError: the logits are not numbers.
    """
    rules = params.checked().rules(model.tokenizer.end_id, room_for(model, batch.longest))
    work = work or Work()
    chooser = make_chooser(rules, len(batch.embeds), params.num_beams > 1)
    decoder = Decoder(model, batch)
    logits = decoder.prefill(work).repeat_interleave(rules.width, 0)
    decoder.expand(rules.width)
    while True:
        ids, rows = chooser.advance(logits)
        if chooser.done:
            return chooser.answers()
        logits = decoder.step(ids, rows)
        work.unit()


def generate_from_embeddings(
    model: InstructBlip,
    embeds: Tensor,
    params: GenerationParams,
    progress: Progress | None = None,
) -> list[list[int]]:
    """Answer one prompt that is given as embeddings [n, width], image tokens among them.

    ``progress(done, most)`` is called after each prefill chunk and each step, and may raise to
    stop. Returns ``num_captions`` lists of ids, best first.

    Raises:
        BadParameter, PromptTooLong, DeviceError: as :func:`generate_ids`.
    """
    mask = torch.ones(1, len(embeds), dtype=torch.long, device=embeds.device)
    batch = PromptBatch(embeds[None], mask)
    return generate_ids(
        model, batch, params, Work(progress, batch.chunks() + params.max_length - 2)
    )


@torch.inference_mode()
def generate(
    model: InstructBlip,
    images: Sequence[Sample],
    prompts: str | Sequence[str],
    params: GenerationParams,
    progress: Progress | None = None,
) -> tuple[list[str], list[list[int]]]:
    """LAVIS's ``generate``: texts, and the ids after its step 0 → 2, up to the first end token.

    Args:
        images: for each prompt one picture, or a list of a video's frames.
        prompts: one for each sample, or one for all. An empty one is allowed, as in LAVIS.
        params: ``num_captions`` answers are returned for each prompt, side by side.
        progress: called after each unit of work: a picture encoded, a Q-Former call, a prefill
            chunk, a step. May raise to stop.

    Raises:
        BadParameter: a value outside its range; numbers of images and prompts that differ.
        PictureError: something that is not a PIL picture, or cannot be decoded.
        PromptTooLong, DeviceError: as :func:`generate_ids`.
    """
    params.checked()
    samples, texts = samples_of(images, prompts)
    # Each picture is a unit for the ViT and one for the Q-Former; steps come on top.
    work = Work(progress, 2 * sum(map(len, samples)) + params.max_length - 2)
    batch = encode_batch(model, samples, texts, work)
    work.expect(batch.chunks())
    raw = generate_ids(model, batch, params, work)
    # The text is LAVIS's: of all ids, so also of those behind an id 0 that became an end token.
    return [model.tokenizer.decode(ids).strip() for ids in raw], [_as_lavis(model, i) for i in raw]


def _as_lavis(model: InstructBlip, ids: list[int]) -> list[int]:
    end = model.tokenizer.end_id
    ids = [end if i == 0 else i for i in ids]
    return ids[: ids.index(end) + 1] if end in ids else ids


def samples_of(
    images: Sequence[Sample], prompts: str | Sequence[str]
) -> tuple[list[list[Image.Image]], list[str]]:
    """The frames (one for a still picture) and the prompt of each sample.

    Raises:
        BadParameter: nothing given, numbers that differ, a prompt that is no text.
        PictureError: something that is not a PIL picture.
    """
    if not isinstance(images, list | tuple):
        raise _no_pictures(images)
    samples = [[s] if isinstance(s, Image.Image) else _frames(s) for s in images]
    texts = [prompts] * len(samples) if isinstance(prompts, str) else list(prompts)
    if not samples or len(texts) != len(samples):
        raise mismatch("prompts", len(texts), "images", len(samples))
    for text in texts:
        if not isinstance(text, str):
            raise BadParameter(
                f"prompts holds {text!r}: give each prompt as a str.",
                name="prompts",
                value=repr(text),
                low="str",
                high="str",
            )
    return samples, texts


def _frames(sample: object) -> list[Image.Image]:
    found = list(sample) if isinstance(sample, list | tuple) else [sample]
    frames = [frame for frame in found if isinstance(frame, Image.Image)]
    if not frames or len(frames) < len(found):
        raise _no_pictures(sample)
    return frames


def _no_pictures(found: object) -> PictureError:
    return PictureError(
        f"images holds {repr(found)[:80]}: give a list with a PIL picture for each prompt, or for "
        "a video an inner list of its frames."
    )


def mismatch(what: str, count: int, other: str, wanted: int) -> BadParameter:
    """The error for two lists that must be as long as each other."""
    return BadParameter(
        f"{count} {what} for {wanted} {other}: give as many {what} as {other}, at least 1 "
        "(the frames of a video are one inner list).",
        name=what,
        value=count,
        low=max(wanted, 1),
        high=max(wanted, 1),
    )


def encode_batch(
    model: InstructBlip, samples: Sequence[Sequence[Image.Image]], texts: Sequence[str], work: Work
) -> PromptBatch:
    """Encode pictures and prompts; refuse prompts that are too long before any work is done."""
    embeds = [model.embed(model.tokenizer.encode_as_lavis(text)) for text in texts]
    for frames, text in zip(samples, embeds, strict=True):
        room_for(model, len(frames) * model.properties.query_tokens + len(text))
    tokens = [_image_tokens(model, f, t, work) for f, t in zip(samples, texts, strict=True)]
    return PromptBatch.pad(tokens, embeds)


def _image_tokens(
    model: InstructBlip, frames: Sequence[Image.Image], text: str, work: Work
) -> Tensor:
    """[frames · query tokens, width]: each frame is queried with the same text."""
    tokens = []
    for frame in frames:
        features = model.encode_image(_rgb(frame))
        work.unit()
        tokens.append(model.query(features, text))
        work.unit()
    return torch.cat(tokens)


def _rgb(picture: Image.Image) -> Image.Image:
    """LAVIS's intake: alpha dropped, EXIF ignored."""
    try:
        return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(
            f"The picture is damaged or cut short ({error}). Send it again.",
            code="picture_truncated",
        ) from error


def room_for(model: InstructBlip, length: int) -> int:
    """How many tokens fit after a prompt of ``length`` tokens, at least 1.

    Raises:
        PromptTooLong: none.
    """
    context = model.properties.context_length
    if length >= context:
        raise PromptTooLong(
            f"The prompt takes {length} tokens with its image tokens; the model's context has "
            f"{context}, and one must be left for the answer. Use a shorter prompt or fewer frames.",
            tokens=length,
            limit=context - 1,
        )
    return context - length


def predict_answers(
    model: InstructBlip,
    images: Sequence[Sample],
    questions: str | Sequence[str],
    prompt: str,
    params: GenerationParams,
    progress: Progress | None = None,
    choices: Sequence[Sequence[str]] | None = None,
) -> tuple[list[str], list[list[int]]]:
    """LAVIS's ``predict_answers``: ``generate`` with each question put into ``prompt``.

    Args:
        questions: one for each sample, or one for all.
        prompt: a format with one ``{}`` for the question, or two for the question and its
            ``choices``, which become "(a) first (b) second". Empty: the question alone.

    Raises:
        BadParameter: a prompt that is no such format; otherwise as :func:`generate`.
    """
    texts = [questions] * len(images) if isinstance(questions, str) else list(questions)
    if prompt:
        texts = fill(prompt, texts, choices)
    return generate(model, images, texts, params, progress)


def fill(
    prompt: str, texts: Sequence[str], choices: Sequence[Sequence[str]] | None = None
) -> list[str]:
    """Each question in the format ``prompt``, as LAVIS's ``predict_answers`` fills it."""
    values: list[tuple[str, ...]] = [(text,) for text in texts]
    if prompt.count("{}") == 2:
        listed = [_lettered(c) for c in choices or ()]
        if len(listed) != len(texts):
            raise mismatch("choices", len(listed), "questions", len(texts))
        values = list(zip(texts, listed, strict=True))
    try:
        return [prompt.format(*value) for value in values]
    except (IndexError, KeyError, ValueError) as error:
        raise BadParameter(
            f"prompt = {prompt!r} is not allowed: use a text with one {{}} for the question, or "
            f"two, for the question and its choices ({type(error).__name__}).",
            name="prompt",
            value=repr(prompt),
            low="{}",
            high="{} {}",
        ) from error


def _lettered(choices: Sequence[str]) -> str:
    if len(choices) > len(ascii_lowercase):
        raise mismatch("choices", len(choices), "letters", len(ascii_lowercase))
    return " ".join(f"({a}) {text}" for a, text in zip(ascii_lowercase, choices, strict=False))
