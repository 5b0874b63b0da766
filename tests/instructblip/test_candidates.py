"""Ranking candidates: losses against the model's own forward pass."""

import io
from typing import Any

import pytest
import torch
from PIL import Image

from instructblip import candidates as module
from instructblip import decoder
from instructblip.errors import BadParameter, PromptTooLong
from instructblip.model import InstructBlip
from tests.tiny_picture import picture

CANDIDATES = ["yes", "a red cat", "two dogs below the blue circle", "no", ""]
ASKED = ["is there a cat", "what is on the left above the green star"]


@pytest.fixture
def pictures() -> list[Image.Image]:
    return [Image.open(io.BytesIO(picture(c))) for c in ((200, 30, 30), (20, 180, 60))]


def by_one_forward(model: InstructBlip, image: Image.Image, prompt: str, candidate: str) -> float:
    """The sum of negative log-likelihoods from the whole row at once, without a cache."""
    encode = model.tokenizer.encode_as_lavis
    tokens = model.query(model.encode_image(image.convert("RGB")), prompt)
    ids = [*encode(prompt), *encode(candidate)[1:]]
    start = len(tokens) + len(encode(prompt))
    embeds = torch.cat([tokens, model.embed(ids)])[None]
    with torch.inference_mode():
        logits = model.weights.language_model(inputs_embeds=embeds).logits[0]
    likely = logits[:, : model.tokenizer.size].float().log_softmax(-1)
    wanted = ids[len(encode(prompt)) :]
    return -sum(float(likely[start + i - 1, token]) for i, token in enumerate(wanted))


@pytest.mark.parametrize(("chunk", "cached"), [(1, 4096), (20, 4096), (1000, 4096), (1000, 90)])
def test_losses_are_those_of_lavis(
    tiny_model: InstructBlip,
    pictures: list[Image.Image],
    chunk: int,
    cached: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(decoder.CHUNK_TOKENS, "cpu", chunk)
    monkeypatch.setattr(module, "CACHED_TOKENS", cached)
    ranks, losses = tiny_model.predict_class(pictures, ASKED, CANDIDATES)
    encode = tiny_model.tokenizer.encode_as_lavis
    row = 4 + max(len(encode(a)) for a in ASKED) + max(len(encode(c)) - 1 for c in CANDIDATES) - 1
    for image, prompt, own, order in zip(pictures, ASKED, losses, ranks, strict=True):
        expected = [by_one_forward(tiny_model, image, prompt, c) / row for c in CANDIDATES]
        assert own == pytest.approx(expected, abs=1e-4)
        assert order == sorted(range(len(own)), key=lambda i: own[i])
    assert losses[0][-1] == 0  # nothing to say costs nothing, as in LAVIS


def test_segments_change_the_length_that_losses_are_divided_by(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    encode = tiny_model.tokenizer.encode_as_lavis
    whole = tiny_model.predict_class(pictures[:1], "a", CANDIDATES)[1][0]
    parts = tiny_model.predict_class(pictures[:1], "a", CANDIDATES, n_segments=2)[1][0]
    longest = [max(len(encode(c)) - 1 for c in part) for part in (CANDIDATES[:2], CANDIDATES[2:])]
    before = 4 + len(encode("a")) - 1
    for place in range(5):
        own = before + longest[0 if place < 2 else 1]
        ratio = (before + max(longest)) / own
        assert parts[place] == pytest.approx(whole[place] * ratio, abs=1e-5)


def test_candidates_of_their_own_are_run_without_the_others(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    own = [["yes", "no"], ["a red cat", "two dogs", "a blue circle"]]
    ranks, losses = tiny_model.predict_class(pictures, ASKED, own)
    for i in range(2):
        alone = tiny_model.predict_class(pictures[i : i + 1], ASKED[i], own[i])
        assert ranks[i] == alone[0][0]
        assert losses[i] == pytest.approx(alone[1][0], abs=1e-6)


def test_a_typed_pad_token_is_not_scored(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    plain, padded = (
        tiny_model.predict_class(pictures[:1], "a", [c])[1][0][0] for c in ("yes", "yes[PAD]")
    )
    row = 4 + len(tiny_model.tokenizer.encode_as_lavis("a")) - 1
    length = len(tiny_model.tokenizer.encode_as_lavis("yes")) - 1
    assert padded * (row + length + 1) == pytest.approx(plain * (row + length), abs=1e-4)


def test_a_video_is_ranked_by_all_its_frames(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    def losses(frames: list[Image.Image]) -> list[float]:
        return tiny_model.predict_class([frames], "a", CANDIDATES[:2])[1][0]

    assert losses(pictures) != pytest.approx(losses(pictures[::-1]), abs=1e-6)


def test_progress_counts_units_and_may_stop(
    tiny_model: InstructBlip, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decoder.CHUNK_TOKENS, "cpu", 30)
    seen: list[tuple[int, int]] = []
    tiny_model.predict_class(
        pictures, ASKED, CANDIDATES, progress=lambda done, most: seen.append((done, most))
    )
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    # For each sample: picture, Q-Former, one prefill chunk, three groups of candidates.
    assert seen[-1] == (12, 12)

    def stop(_done: int, _most: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_model.predict_class(pictures, ASKED, CANDIDATES, progress=stop)


@pytest.mark.parametrize("candidates", [[], "yes", [[]], [3], None])
def test_candidates_must_be_texts(
    tiny_model: InstructBlip, pictures: list[Image.Image], candidates: Any
) -> None:
    with pytest.raises(BadParameter, match=r"^candidates = "):
        tiny_model.predict_class(pictures[:1], "a", candidates)


def test_bad_numbers_are_refused(tiny_model: InstructBlip, pictures: list[Image.Image]) -> None:
    for segments in (0, 6, 1.5):
        with pytest.raises(BadParameter, match=r"^n_segments = .* from 1 to 5"):
            tiny_model.predict_class(pictures[:1], "a", CANDIDATES, n_segments=segments)  # type: ignore[arg-type]
    with pytest.raises(BadParameter, match="as many prompts as images"):
        tiny_model.predict_class(pictures, ["a"], CANDIDATES)
    with pytest.raises(BadParameter, match="1 lists of candidates for 2 images"):
        tiny_model.predict_class(pictures, "a", [["yes", "no"]])
    with pytest.raises(BadParameter, match="list of one or more texts"):
        tiny_model.predict_class(pictures, "a", [["yes"], []])


def test_a_candidate_must_fit_into_the_context(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    with pytest.raises(PromptTooLong):
        tiny_model.predict_class(pictures[:1], "a", ["yes", "cat " * 400])
