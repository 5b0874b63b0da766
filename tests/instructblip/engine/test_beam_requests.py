"""Beam search through the engine: LAVIS's answer, progress, others beside it, Stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from instructblip.engine.base import FinishReason, Phase, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.generation import GenerationParams, generate_from_embeddings
from tests.instructblip.engine.scratch import embeddings
from tests.tiny import picture

Make = Callable[..., LocalEngine]
BEAMS = SamplingParams(max_new_tokens=12, num_beams=3, repetition_penalty=1.5, length_penalty=0.5)
PICTURES = {"p": picture()}


def test_the_answer_is_that_of_laviss_generation_and_comes_whole(
    tiny_model, new_engine: Make
) -> None:
    engine = new_engine()
    engine.register_picture("p", PICTURES["p"])
    request = Request("r", "what is it", "p", sampling=BEAMS)
    deltas = list(engine.submit(request))
    params = GenerationParams(num_beams=3, max_length=13, length_penalty=0.5)
    (want,) = generate_from_embeddings(
        tiny_model, embeddings(tiny_model, request, PICTURES), params
    )
    last = deltas[-1]
    assert list(last.answer_ids) == want
    assert "".join(d.text for d in deltas) == tiny_model.tokenizer.decode(want).strip()
    shares = [d.progress for d in deltas if d.progress]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert last.statistics.new_tokens == len(want)
    assert last.statistics.first_token > 0


def test_streams_go_on_beside_a_beam_search_and_both_are_right(new_engine: Make) -> None:
    long = SamplingParams(max_new_tokens=30)
    engine = new_engine()
    engine.register_picture("p", PICTURES["p"])
    alone = list(engine.submit(Request("s", "how many dogs", "p", sampling=long)))[-1]
    beams = list(engine.submit(Request("b", "what is it", "p", sampling=BEAMS)))[-1]
    searching = [
        engine.submit(Request(str(n), "what is it", "p", sampling=BEAMS)) for n in range(2)
    ]
    stream = engine.submit(Request("s", "how many dogs", "p", sampling=long))
    assert [list(s)[-1].answer_ids for s in searching] == [beams.answer_ids] * 2
    assert list(stream)[-1].answer_ids == alone.answer_ids


def test_a_beam_search_that_waits_for_another_holds_up_nobody(new_engine: Make) -> None:
    long = replace(BEAMS, max_new_tokens=150, min_new_tokens=150)
    engine = new_engine()
    engine.register_picture("p", PICTURES["p"])
    searches = [engine.submit(Request(str(n), "what is it", "p", sampling=long)) for n in range(2)]
    short = SamplingParams(max_new_tokens=3)
    assert list(engine.submit(Request("s", "how many dogs", "p", sampling=short)))[-1].finish
    assert (engine.statistics()["running"], engine.statistics()["waiting"]) == (1, 1)
    for stream in searches:
        stream.cancel()
    assert [list(s)[-1].finish for s in searches] == [FinishReason.CANCELLED] * 2


def test_stop_ends_a_beam_search_within_one_unit(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()
    engine.register_picture("p", PICTURES["p"])
    stream = engine.submit(
        Request("r", "what is it", "p", sampling=replace(BEAMS, max_new_tokens=150))
    )
    for delta in stream:
        if delta.phase is Phase.DECODE and delta.progress:
            before = engine.statistics()["units"]["beams"]
            stream.cancel()
            break
    assert list(stream)[-1].finish is FinishReason.CANCELLED
    assert engine.statistics()["units"]["beams"] - before <= 3
    assert engine.statistics()["running"] == 0
    again = list(engine.submit(Request("r", "what is it", "p", sampling=BEAMS)))[-1]
    assert again.finish in (FinishReason.STOP, FinishReason.LENGTH)


def test_out_of_memory_is_tried_once_more(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import instructblip.generation as generation

    engine = new_engine()
    engine.register_picture("p", PICTURES["p"])
    want = list(engine.submit(Request("r", "what is it", "p", sampling=BEAMS)))[-1].answer_ids
    real, left = generation.generate_from_embeddings, [2, 1]

    def short(*args: object) -> list[list[int]]:
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("no memory")
        return real(*args)

    monkeypatch.setattr(generation, "generate_from_embeddings", short)
    last = list(engine.submit(Request("r", "what is it", "p", sampling=BEAMS)))[-1]
    assert last.error.code == "out_of_memory"
    left[0] = 1
    assert (
        list(engine.submit(Request("r", "what is it", "p", sampling=BEAMS)))[-1].answer_ids == want
    )
