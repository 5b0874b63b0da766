"""Rows of training are the prompts of the run time, with the answers to learn."""

import random
from pathlib import Path

import pytest
import torch

from instructblip.checkpoints import EMBEDDED
from instructblip.conversation import ImageSegment, Vocabulary, build_prompt
from instructblip.engine.base import PastTurn, Request, SamplingParams
from instructblip.properties import Properties
from instructblip.scenes import compose
from instructblip.training.batches import IMAGE, START, Collator, Talk
from instructblip.training.dialogues import Dialogues
from instructblip.training.joint import together
from instructblip.training.language import CONTEXT, NEW_TOKENS, QUERIES
from instructblip.training.loop import Workshop


@pytest.fixture(scope="module")
def collator(tmp_path_factory: pytest.TempPathFactory) -> Collator:
    return Workshop(tmp_path_factory.mktemp("shop"), EMBEDDED).collator()


def talk(seed: int, turns: int, layout: str) -> Talk:
    """A dialogue about a few scenes."""
    rng = random.Random(seed)
    talks, made = Dialogues(rng, language=None), []
    while len(made) < turns:
        number = rng.randrange(3)
        made += [(number, t) for t in talks.dialogue(compose(number), rng.randint(1, 9))]
    return Talk(tuple(made[:turns]), layout)


def prompt_ids(collator: Collator, given: Talk) -> tuple[list[int], list[str]]:
    """What the run time reads before it answers the last question; its Q-Former texts."""
    properties = Properties(
        "embedded", query_tokens=QUERIES, qformer_text="question_then_history",
        context_length=CONTEXT, layouts=("append", "keep", "refresh"),
    )  # fmt: skip
    vocabulary = Vocabulary(collator.encode, START, START)
    history: list[PastTurn] = []
    for scene, turn in given.turns:
        request = Request(
            "", turn.question, str(scene), tuple(history), SamplingParams(max_new_tokens=NEW_TOKENS),
            layout=given.layout,
        )  # fmt: skip
        prompt = build_prompt(request, properties, vocabulary)
        ids = (*collator.encode(turn.answer), START)
        history.append(
            PastTurn("", turn.question, str(scene), ids, turn.answer, prompt.qformer_text)
        )
    images = [s for s in prompt.segments if isinstance(s, ImageSegment)]
    flat = [
        i for s in prompt.segments
        for i in ([IMAGE] * s.length if isinstance(s, ImageSegment) else s.ids)
    ]  # fmt: skip
    return flat, [image.qformer_text for image in images]


@pytest.mark.parametrize("layout", ["append", "keep", "refresh"])
@pytest.mark.parametrize("turns", [1, 2, 7, 40])
def test_a_row_is_the_prompt_and_its_answer(collator: Collator, layout: str, turns: int) -> None:
    given = talk(turns, turns, layout)
    row, texts = collator._row(given)
    answer = collator.encode(given.turns[-1][1].answer)
    ids, shown = prompt_ids(collator, given)
    assert row.ids == [*ids, *answer]
    assert [texts[n] for n in row.shown] == shown
    assert row.targets[-len(answer) - 1 :] == [*answer, START]
    assert all(weight > 0 for weight in row.weights[-len(answer) - 1 :])
    if turns == 40 and layout == "append":
        assert len(row.shown) < 30  # the oldest turns are gone


def test_every_answer_is_learnt_but_in_refresh(collator: Collator) -> None:
    for layout, learnt in (("append", 5), ("keep", 5), ("refresh", 1)):
        row, _ = collator._row(talk(3, 5, layout))
        assert sum(t == START for t in row.targets) == learnt
        assert len(row.ids) == len(row.targets) == len(row.weights)
        for at, target in enumerate(row.targets[:-1]):
            if target >= 0 and target != START:
                assert row.ids[at + 1] == target  # what is learnt is what is read next


def test_rows_of_like_length_run_together() -> None:
    lengths = torch.tensor([10, 900, 20, 12, 950, 11])
    groups = together(lengths, 1900)
    assert [(sorted(rows.tolist()), longest) for rows, longest in groups] == [
        ([1, 4], 950), ([0, 2, 3, 5], 20),
    ]  # fmt: skip
    assert together(torch.tensor([5000]), 100)[0][1] == 5000


def test_image_tokens_come_in_the_order_of_their_slots(collator: Collator, tmp_path: Path) -> None:
    scenes = [compose(n) for n in range(3)]
    batch = collator.batch(scenes, [talk(n, 3, k) for n, k in enumerate(("append", "refresh"))])
    assert int((batch.ids == IMAGE).sum()) == QUERIES * len(batch.pictures) == QUERIES * 4
    assert batch.lengths.tolist() == [int((batch.ids[n] != 2).nonzero().max()) + 1 for n in (0, 1)]
