"""LAVIS's generation on a tiny model: batches, lengths, progress, bad input."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import instructblip
from instructblip import decoder
from instructblip.decoder import Decoder, PromptBatch, Work
from instructblip.engine.kv_cache import Arena, CacheShape
from instructblip.engine.steps import Piece, RaggedStep
from instructblip.errors import BadParameter, DeviceError, PictureError, PromptTooLong
from instructblip.generation import GenerationParams, fill, generate_from_embeddings
from instructblip.model import InstructBlip
from tests.tiny_picture import picture

ASKED = ["what is in the picture", "is there a green star on the left", "a"]
LOGITS = Callable[[torch.Tensor, int], torch.Tensor]


@pytest.fixture
def pictures() -> list[Image.Image]:
    colours = [(200, 30, 30), (20, 180, 60), (10, 40, 220)]
    return [Image.open(io.BytesIO(picture(c))) for c in colours]


def with_logits(model: InstructBlip, change: LOGITS) -> Callable[[], None]:
    """Change the language model's logits; the second argument counts the calls from 0."""
    calls: list[int] = []

    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return change(output.clone(), len(calls) - 1)

    return model.weights.language_model.lm_head.register_forward_hook(hook).remove  # type: ignore[no-any-return]


def favour(*order: int) -> LOGITS:
    """Each call makes the next of these ids certain."""

    def change(logits: torch.Tensor, call: int) -> torch.Tensor:
        logits[..., order[min(call, len(order) - 1)]] = 1e4
        return logits

    return change


@pytest.mark.parametrize("options", [{"num_beams": 1}, {}, {"num_captions": 3}])
def test_a_left_padded_batch_answers_as_each_prompt_alone(
    tiny_model: InstructBlip, pictures: list[Image.Image], options: dict[str, Any]
) -> None:
    together = tiny_model.generate(pictures, ASKED, max_length=12, return_ids=True, **options)
    texts: list[str] = []
    ids: list[list[int]] = []
    for image, prompt in zip(pictures, ASKED, strict=True):
        one = tiny_model.generate([image], [prompt], max_length=12, return_ids=True, **options)
        texts += one[0]
        ids += one[1]
    assert together == (texts, ids)
    assert len(ids) == 3 * options.get("num_captions", 1)


def test_greedy_without_penalty_is_the_best_logit_of_the_chat_path(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    image = pictures[0].convert("RGB")
    tokens = tiny_model.query(tiny_model.encode_image(image), ASKED[0])
    text = tiny_model.embed(tiny_model.tokenizer.encode_as_lavis(ASKED[0]))
    shape = CacheShape.of(tiny_model.text_config)
    arena = Arena(shape, 1, 255, tiny_model.dtype, tiny_model.device)
    step, (slot,) = RaggedStep(tiny_model, arena), arena.slots
    piece, ids = Piece(slot, torch.cat([tokens, text])), []
    while len(ids) < 9 and 2 not in ids:
        ids.append(int(step.run([piece])[0].argmax()))
        arena.extend(slot, range(piece.size))
        piece = Piece(slot, token=ids[-1])
    got = tiny_model.generate(
        [image], ASKED[0], num_beams=1, repetition_penalty=1.0, max_length=10, return_ids=True
    )[1]
    assert got == [ids]


def test_lengths_count_the_start_token(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    never_end = with_logits(tiny_model, favour(9))
    for beams in (1, 5):
        ids = tiny_model.generate(
            pictures[:1],
            "a",
            num_beams=beams,
            max_length=7,
            repetition_penalty=1.0,
            return_ids=True,
        )[1]
        assert ids == [[9] * 6]
    never_end()
    always_end = with_logits(tiny_model, favour(2))
    for beams in (1, 5):
        ids = tiny_model.generate(
            pictures[:1], "a", num_beams=beams, min_length=4, return_ids=True
        )[1]
        # The end is forbidden while there are fewer than four ids, the start among them.
        assert len(ids[0]) == 4
        assert ids[0][-1] == 2
    always_end()


def test_the_penalty_leaves_the_prompt_alone(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    asked = tiny_model.tokenizer.encode_as_lavis("a")[-1]

    def change(logits: torch.Tensor, call: int) -> torch.Tensor:
        logits[..., asked], logits[..., 7] = 900.0, 800.0
        return logits

    undo = with_logits(tiny_model, change)
    ids = tiny_model.generate(pictures[:1], "a", num_beams=1, max_length=4, return_ids=True)[1]
    undo()
    assert ids == [[asked, 7, asked]]


def test_id_0_becomes_an_end_token_but_the_text_goes_on(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    words = [i for i in tiny_model.tokenizer.encode("red dog") if i > 2]
    undo = with_logits(tiny_model, favour(words[0], 0, *words[1:], 2))
    texts, ids = tiny_model.generate(pictures[:1], "a", num_beams=1, return_ids=True)
    undo()
    assert ids == [[words[0], 2]]
    assert texts == ["red dog"]


def test_frames_of_a_video_are_joined(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    def ids(sample: Any) -> list[list[int]]:
        return tiny_model.generate(sample, "a", max_length=12, return_ids=True)[1]

    assert ids([[pictures[0]]]) == ids([pictures[0]])
    two = ids([pictures[:2]])
    assert two != ids([pictures[0]])
    # A picture beside a video: other numbers of image tokens in one batch.
    assert ids([pictures[0], pictures[:2]]) == ids([pictures[0]]) + two


def test_a_picture_is_taken_as_lavis_takes_it(tiny_model: InstructBlip) -> None:
    clear = Image.new("RGBA", (30, 30), (200, 10, 10, 0))
    clear.paste((0, 0, 250, 90), (0, 0, 12, 30))
    opaque = clear.copy()
    opaque.putalpha(255)
    alike = [
        tiny_model.generate([p], "a", max_length=9) for p in (clear, opaque, opaque.convert("RGB"))
    ]
    assert alike[0] == alike[1] == alike[2]


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_prefill_chunks_change_nothing(
    tiny_model: InstructBlip,
    pictures: list[Image.Image],
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = tiny_model.generate(pictures, ASKED, max_length=10)
    monkeypatch.setitem(decoder.CHUNK_TOKENS, "cpu", chunk)
    assert tiny_model.generate(pictures, ASKED, max_length=10) == expected


def test_rows_that_change_places_take_their_keys_and_values_along(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    prompts, chosen = [], [[20, 30, 40], [50, 60, 70]]
    for image, text in zip(pictures[:2], ASKED, strict=False):
        tokens = tiny_model.query(tiny_model.encode_image(image.convert("RGB")), text)
        prompts.append((tokens, tiny_model.embed(tiny_model.tokenizer.encode_as_lavis(text))))
    with torch.inference_mode():
        batch = PromptBatch.pad([i for i, _ in prompts], [t for _, t in prompts])
        rows = Decoder(tiny_model, batch)
        rows.prefill(Work())
        rows.expand(3)
        rows.step(torch.tensor([i for ids in chosen for i in ids]), None)
        logits = rows.step(torch.tensor([80] * 6), torch.tensor([2, 0, 0, 5, 4, 3]))
        for row, (prompt, source) in enumerate([(0, 2), (0, 0), (0, 0), (1, 2), (1, 1), (1, 0)]):
            ids = tiny_model.embed([chosen[prompt][source], 80])
            embeds = torch.cat([*prompts[prompt], ids])[None]
            whole = tiny_model.weights.language_model(inputs_embeds=embeds).logits[0, -1]
            assert torch.allclose(logits[row], whole[: logits.shape[1]], atol=1e-4)
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


def test_half_precision_answers_too(tiny_folder: Path, pictures: list[Image.Image]) -> None:
    model = instructblip.load(tiny_folder, device="cpu", dtype="bf16")
    ids = model.generate(pictures, ASKED, max_length=8, min_length=8, return_ids=True)[1]
    assert [len(row) for row in ids] == [7, 7, 7]
    assert len(model.predict_class(pictures, "a", ["yes", "no"])[0]) == 3


def test_one_prompt_given_as_embeddings(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    tokens = tiny_model.query(tiny_model.encode_image(pictures[0].convert("RGB")), "a")
    embeds = torch.cat([tokens, tiny_model.embed(tiny_model.tokenizer.encode_as_lavis("a"))])
    params = GenerationParams(max_length=12, num_captions=2)
    seen: list[tuple[int, int]] = []
    ids = generate_from_embeddings(
        tiny_model, embeds, params, lambda done, most: seen.append((done, most))
    )
    expected = tiny_model.generate(
        pictures[:1], "a", max_length=12, num_captions=2, return_ids=True
    )[1]
    assert ids == expected
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert len({most for _, most in seen}) == 1
    assert seen[-1][0] <= seen[-1][1]


class Stopped(Exception):
    pass


def test_progress_counts_units_and_may_stop_after_any(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    seen: list[tuple[int, int]] = []

    def ask(progress: Any) -> list[str]:
        return tiny_model.generate(pictures, ASKED, max_length=6, progress=progress)

    expected = ask(lambda done, most: seen.append((done, most)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert all(done <= most for done, most in seen)
    assert len(seen) > 2 * len(pictures) + 1  # each picture twice, prefill, steps

    for last in range(1, len(seen) + 1):

        def stop(done: int, _most: int, last: int = last) -> None:
            if done == last:
                raise Stopped

        with pytest.raises(Stopped):
            ask(stop)
    assert ask(None) == expected


def test_sampling_gives_so_many_captions_and_a_seed_repeats_them(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    def ask(seed: int, beams: int) -> list[list[int]]:
        return tiny_model.generate(
            pictures[:2], "a", use_nucleus_sampling=True, num_beams=beams, num_captions=4,
            max_length=8, seed=seed, return_ids=True,
        )[1]  # fmt: skip

    for beams in (1, 5):
        assert ask(1, beams) == ask(1, beams)
        assert ask(1, beams) != ask(2, beams)
        assert len(ask(1, beams)) == 8


@pytest.mark.parametrize("room", [12, 1])
def test_the_answer_ends_where_the_context_does(
    tiny_model: InstructBlip, pictures: list[Image.Image], room: int
) -> None:
    used = 4 + len(tiny_model.tokenizer.encode_as_lavis("a"))
    tiny_model.properties = replace(tiny_model.properties, context_length=used + room)
    undo = with_logits(tiny_model, favour(9))
    for beams in (1, 5):
        ids = tiny_model.generate(
            pictures[:1], "a", num_beams=beams, repetition_penalty=1.0, return_ids=True
        )[1]
        assert ids == [[9] * room]
    undo()
    tiny_model.properties = replace(tiny_model.properties, context_length=used)
    with pytest.raises(PromptTooLong):
        tiny_model.generate(pictures[:1], "a")


def test_a_prompt_over_the_context_is_refused_before_any_work(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    seen: list[int] = []
    for images, text in (
        (pictures[:1], "cat " * 300),
        ([pictures * 30], "a"),  # a long video
    ):
        with pytest.raises(PromptTooLong, match="context has 256"):
            tiny_model.generate(images, text, progress=lambda done, _: seen.append(done))
    assert seen == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 0), ("num_beams", 1000), ("num_beams", 2.0), ("num_beams", True),
        ("max_length", 1), ("max_length", 10**9), ("min_length", -1), ("min_length", 257),
        ("top_p", 1.1), ("top_p", float("nan")), ("top_p", "0.9"), ("repetition_penalty", 0),
        ("length_penalty", float("inf")), ("length_penalty", 11), ("num_captions", 0),
        ("num_captions", 6), ("temperature", 0), ("seed", -1), ("max_length", None),
    ],
)  # fmt: skip
def test_absurd_values_are_refused_by_name(
    tiny_model: InstructBlip, pictures: list[Image.Image], name: str, value: Any
) -> None:
    with pytest.raises(BadParameter, match=rf"^{name} = .* from .* to ") as caught:
        tiny_model.generate(pictures[:1], "a", **{name: value})
    assert {"name", "value", "low", "high"} <= set(caught.value.values)


def test_greedy_search_has_one_caption_only(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    with pytest.raises(BadParameter, match="num_captions = 2"):
        tiny_model.generate(pictures[:1], "a", num_beams=1, num_captions=2)


def test_numbers_of_images_and_prompts_must_agree(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    for images, prompts in ((pictures[:2], ["a"]), ([], []), ([], "a"), (pictures[:1], ["a", "b"])):
        with pytest.raises(BadParameter, match="give as many prompts as images"):
            tiny_model.generate(images, prompts)
    with pytest.raises(BadParameter, match="as a str"):
        tiny_model.generate(pictures[:1], [3])  # type: ignore[list-item]
    assert len(tiny_model.generate(pictures, "a", max_length=4)) == 3


@pytest.mark.parametrize("images", ["x.png", ["x.png"], [[]], [[None]], [b"x"], None])
def test_what_is_no_picture_is_refused(tiny_model: InstructBlip, images: Any) -> None:
    with pytest.raises(PictureError, match="PIL picture"):
        tiny_model.generate(images, "a")


def test_a_picture_that_is_cut_short_is_refused(tiny_model: InstructBlip) -> None:
    data = io.BytesIO()
    Image.effect_noise((90, 90), 80).save(data, "PNG")
    broken = Image.open(io.BytesIO(data.getvalue()[:3000]))
    with pytest.raises(PictureError) as caught:
        tiny_model.generate([broken], "a")
    assert caught.value.code == "picture_truncated"


def test_logits_that_are_no_numbers_are_an_error(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    undo = with_logits(tiny_model, lambda logits, call: logits + (torch.nan if call == 2 else 0))
    with pytest.raises(DeviceError) as caught:
        tiny_model.generate(pictures[:1], "a")
    undo()
    assert caught.value.code == "not_finite"


def test_answers_are_short_and_have_no_length_penalty(
    tiny_model: InstructBlip, pictures: list[Image.Image]
) -> None:
    prompt = "where is {} now"
    answers = tiny_model.predict_answers(pictures[:2], ["a cat", "a dog"], prompt=prompt)
    expected = tiny_model.generate(
        pictures[:2], ["where is a cat now", "where is a dog now"], max_length=10, length_penalty=0
    )
    assert answers == expected
    assert tiny_model.predict_answers(pictures[:2], "a cat") == tiny_model.generate(
        pictures[:2], "a cat", max_length=10, length_penalty=0
    )


def test_a_prompt_takes_the_question_and_its_choices() -> None:
    assert fill("Q: {} A:", ["x", "{y}"]) == ["Q: x A:", "Q: {y} A:"]
    assert fill("Q: {} Options: {}.", ["x"], [["red", "blue"]]) == [
        "Q: x Options: (a) red (b) blue."
    ]
    assert fill("no place", ["x"]) == ["no place"]
    for prompt, choices in (("{} {}", None), ("{} {}", [["a"], ["b"]]), ("{} {}", [["a"] * 27])):
        with pytest.raises(BadParameter, match="choices"):
            fill(prompt, ["x"], choices)
    for prompt in ("{", "{question}", "{} {} {}"):
        with pytest.raises(BadParameter, match=r"^prompt = "):
            fill(prompt, ["x"])
