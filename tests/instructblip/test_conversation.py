"""Layouts, budget and the tree."""

from dataclasses import replace

import pytest
from fastchat.conversation import get_conv_template
from hypothesis import given
from hypothesis import strategies as st

from instructblip.conversation import (
    Conversation,
    ImageSegment,
    TextSegment,
    Vocabulary,
    build_prompt,
    context_budget,
    qformer_text,
)
from instructblip.engine.base import PastTurn, Request, SamplingParams
from instructblip.errors import BadParameter, PromptTooLong, UnknownTurn
from instructblip.properties import Properties

WORDS: list[str] = []


def encode(text: str) -> list[int]:
    """A word is an id from 100 on, so that prompts can be read back."""
    for word in text.split():
        if word not in WORDS:
            WORDS.append(word)
    return [100 + WORDS.index(word) for word in text.split()]


VOCABULARY = Vocabulary(encode, 2, 2, "f1")
PROPERTIES = Properties("t", query_tokens=4, context_length=128)


def past(n: int, picture: str = "p1", end: bool = True) -> PastTurn:
    ids = (*encode(f"a{n}"), 2) if end else tuple(encode(f"a{n}"))
    return PastTurn(f"t{n}", f"q{n}", picture, ids, f"a{n}", f"text{n}", "f1")


def show(request: Request, properties: Properties = PROPERTIES) -> str:
    """The prompt in words: img(picture,text), </s> and words."""
    words = []
    for segment in build_prompt(request, properties, VOCABULARY).segments:
        if isinstance(segment, ImageSegment):
            words.append(f"img({segment.picture_id},{segment.qformer_text})")
        else:
            words += ["</s>" if i == 2 else WORDS[i - 100] for i in segment.ids]
    return " ".join(words)


def asked(layout: str, *history: PastTurn, picture: str = "p1") -> Request:
    return Request("r", "q3", picture, history, SamplingParams(max_new_tokens=8), layout=layout)


def test_the_three_layouts_at_turn_three() -> None:
    two = (past(1), past(2))
    assert show(asked("refresh", *two)) == "img(p1,q3) </s> q1 a1 q2 a2 q3"
    assert show(asked("keep", *two)) == "img(p1,text1) </s> q1 a1 </s> q2 a2 </s> q3"
    assert show(asked("append", *two)) == (
        "img(p1,text1) </s> q1 a1 img(p1,text2) </s> q2 a2 img(p1,q3) </s> q3"
    )


@pytest.mark.parametrize("layout", ["refresh", "keep", "append"])
def test_the_first_turn_is_lavis_prompt_in_each_layout(layout: str) -> None:
    assert show(asked(layout)) == "img(p1,q3) </s> q3"


def test_each_turn_shows_its_own_picture() -> None:
    history = (past(1, "p1"), past(2, "p1"))
    assert show(asked("refresh", *history, picture="p2")).startswith("img(p2,q3)")
    assert show(asked("keep", *history, picture="p2")).endswith("q2 a2 img(p2,q3) </s> q3")
    assert "img(p1,text1)" in show(asked("append", *history, picture="p2"))


def test_vicuna_template_reads_as_fastchat_renders_it() -> None:
    vicuna = replace(PROPERTIES, template="vicuna_v1.1")
    reference = get_conv_template("vicuna_v1.1")
    for role, text in ((0, "q1"), (1, "a1"), (0, "q3"), (1, None)):
        reference.append_message(reference.roles[role], text)
    want = reference.get_prompt().replace("</s>", " </s> ").split()
    got = show(asked("refresh", past(1)), vicuna).split()
    assert got[:2] == ["img(p1,q3)", "</s>"]
    assert got[2:] == want
    appended = show(asked("append", past(1)), vicuna)
    assert appended.count("img(") == 2
    assert "a1 </s> img(p1,q3) USER: q3 ASSISTANT:" in appended


def test_a_stopped_answer_has_no_end_token() -> None:
    vicuna = replace(PROPERTIES, template="vicuna_v1.1")
    assert "a1 USER:" in show(asked("keep", past(1, end=False)), vicuna)


def test_another_tokenizers_ids_are_read_anew() -> None:
    foreign = replace(past(1), tokenizer="other", answer_ids=(9999,))
    assert "a1" in show(asked("keep", foreign))


def test_qformer_text_with_history_holds_the_question_first_and_two_turns() -> None:
    p = replace(PROPERTIES, qformer_text="question_then_history")
    assert qformer_text(p, "q", []) == "q"
    assert qformer_text(p, "q9", [past(1), past(2), past(3)]) == "q9 [SEP] q2 a2 q3 a3"


def test_a_turn_that_cannot_fit_is_refused_with_figures() -> None:
    request = replace(asked("append"), question="w " * 200)
    with pytest.raises(PromptTooLong, match=r"takes 205 tokens"):
        build_prompt(request, PROPERTIES, VOCABULARY)


def test_an_unknown_layout_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(BadParameter, match="refresh, keep, append"):
        build_prompt(asked("sideways"), PROPERTIES, VOCABULARY)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=25),
    layout=st.sampled_from(["refresh", "keep", "append"]),
)
def test_trimming_keeps_whole_turns_within_budget(sizes, layout) -> None:
    sampling = SamplingParams(max_new_tokens=8)
    budget = context_budget(PROPERTIES, 8)
    history: list[PastTurn] = []
    cuts = []
    for n, (question, answer) in enumerate(sizes):
        request = Request("r", "w " * question, "p", tuple(history), sampling, layout=layout)
        prompt = build_prompt(request, PROPERTIES, VOCABULARY)
        assert len(prompt) <= budget
        # Once cut, the cut stays where it is until the context is full again.
        cuts.append(prompt.trimmed_turns)
        assert cuts == sorted(cuts)
        tail = [s for s in prompt.segments if isinstance(s, TextSegment)][-1]
        assert tail.ids == tuple(encode(request.question))
        ids = tuple(encode("w " * answer))
        history.append(PastTurn(str(n), request.question, "p", ids, "", prompt.qformer_text, "f1"))


def test_keys_of_an_earlier_prompt_are_a_prefix_in_keep_and_append() -> None:
    for layout in ("keep", "append"):
        first = build_prompt(Request("r", "q1", "p1", layout=layout), PROPERTIES, VOCABULARY)
        answered = PastTurn("t", "q1", "p1", (150, 2), "", first.qformer_text, "f1")
        later = build_prompt(asked(layout, answered), PROPERTIES, VOCABULARY)
        assert later.keys()[: len(first)] == first.keys()


def test_the_tree_keeps_versions_and_branches() -> None:
    talk = Conversation()
    talk.add(past(1))
    talk.add(past(2), "t1")
    talk.add(past(3), "t1")  # a retry of turn 2
    assert [t.turn_id for t in talk.path()] == ["t1", "t3"]
    assert [t.id for t in talk.siblings("t3")] == ["t2", "t3"]
    assert [t.turn_id for t in talk.path("t2")] == ["t1", "t2"]
    assert talk.undo() == "q3"
    assert talk.leaf == "t1"
    with pytest.raises(UnknownTurn):
        talk.add(past(9), "forged")
    with pytest.raises(UnknownTurn):
        talk.add(past(1))
