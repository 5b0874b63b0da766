"""Random mixes of chats, layouts, branches, cancels and evictions answer as each from scratch."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import instructblip
from instructblip.engine.base import Delta, FinishReason, PastTurn, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.engine.stream import LocalStream
from tests.instructblip.engine.scratch import check_greedy
from tests.tiny import picture

PICTURES = {"red": picture(), "green": picture((10, 200, 40), (25, 60))}
QUESTIONS = ("what is it", "where is the red cat", "how many dogs", "a blue circle on the left")


@dataclass
class Chat:
    """One person's conversation; at most one request is open."""

    layout: str
    turns: list[PastTurn] = field(default_factory=list)
    open: tuple[Request, LocalStream] | None = None


@dataclass
class Mix:
    """Chats over one engine; every finished answer is compared with transformers."""

    engine: LocalEngine
    model: object
    rng: random.Random
    compared: int = 0

    def ask(self, chat: Chat) -> None:
        move = self.rng.random()
        if move < 0.15 and chat.turns:
            chat.turns.pop()  # undo
        elif move < 0.3 and chat.turns:
            chat.turns = chat.turns[: self.rng.randrange(len(chat.turns))]  # edit: a branch
        request = Request(
            "r", self.rng.choice(QUESTIONS), self.rng.choice(list(PICTURES)), tuple(chat.turns),
            SamplingParams(max_new_tokens=self.rng.choice((1, 5, 9))), layout=chat.layout,
        )  # fmt: skip
        chat.open = (request, self.engine.submit(request))

    def finish(self, chat: Chat) -> None:
        assert chat.open is not None
        (request, stream), chat.open = chat.open, None
        if self.rng.random() < 0.15:
            stream.cancel()
        last: Delta = list(stream)[-1]
        assert last.finish in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED)
        self.compared += check_greedy(self.model, request, PICTURES, last.answer_ids)
        past = PastTurn(
            "t", request.question, request.picture_id, last.answer_ids, "", last.qformer_text
        )
        chat.turns.append(past)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return instructblip.load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_folder):
    """The same weights for this thread: the engine's thread alone may touch the engine's model."""
    return instructblip.load(tiny_folder, device="cpu")


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**20), slots=st.integers(1, 5), batch=st.integers(1, 4),
    static=st.booleans(), layouts=st.lists(st.sampled_from(["append", "keep", "refresh"]), min_size=1, max_size=4),
)  # fmt: skip
def test_any_mix_gives_the_tokens_from_scratch(
    model, reference, seed: int, slots: int, batch: int, static: bool, layouts: list[str]
) -> None:
    engine = LocalEngine(model, slots=slots, batch=batch, static=static)
    mix = Mix(engine, reference, random.Random(seed))
    try:
        for name, data in PICTURES.items():
            engine.register_picture(name, data)
        chats = [Chat(layout) for layout in layouts]
        for _ in range(5 * len(chats)):
            chat = mix.rng.choice(chats)
            if chat.open:
                mix.finish(chat)
            else:
                mix.ask(chat)
        for chat in chats:
            if chat.open:
                mix.finish(chat)
    finally:
        engine.close()


def test_a_chat_of_forty_turns_goes_past_the_context(model, reference) -> None:
    engine = LocalEngine(model, slots=2)
    trimmed, turns, compared = [], [], 0
    try:
        engine.register_picture("red", PICTURES["red"])
        for n in range(40):
            request = Request(
                "r", QUESTIONS[n % 4], "red", tuple(turns), SamplingParams(max_new_tokens=6),
                layout="append",
            )  # fmt: skip
            last = list(engine.submit(request))[-1]
            compared += check_greedy(reference, request, PICTURES, last.answer_ids)
            trimmed.append(last.statistics.trimmed_turns)
            turns.append(
                PastTurn("t", request.question, "red", last.answer_ids, "", last.qformer_text)
            )
    finally:
        engine.close()
    assert compared > 150
    assert trimmed == sorted(trimmed)
    # A rebuild now and then, and whole turns at once: not one at each turn.
    assert 2 <= len(set(trimmed)) <= 8


def test_sampled_answers_hang_on_the_seed_alone(model) -> None:
    hot = SamplingParams(max_new_tokens=8, temperature=1.5, seed=11)
    requests = [Request("r", q, "red", (), hot) for q in QUESTIONS]

    def answers(batch: int, static: bool) -> list[tuple[int, ...]]:
        engine = LocalEngine(model, batch=batch, static=static)
        try:
            engine.register_picture("red", PICTURES["red"])
            streams = [engine.submit(request) for request in requests]
            return [list(s)[-1].answer_ids for s in streams]
        finally:
            engine.close()

    alone = answers(1, static=False)
    assert answers(4, static=False) == alone
    assert answers(4, static=True) == alone
    assert len(set(alone)) > 1
