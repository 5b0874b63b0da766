"""Questions are answerable from the picture, balanced, and the tests' wording is their own."""

import random
from collections import Counter

from instructblip.scenes import UNKNOWN, compose
from instructblip.training.dialogues import SHARES, UNKNOWN_ANSWER, Dialogues, all_names, place
from instructblip.training.phrasings import PHRASINGS, TEST_PHRASINGS


def exchanges(count: int = 1500, seed: int = 5):
    rng = random.Random(seed)
    talks = Dialogues(rng)
    for _ in range(count):
        scene = compose(rng)
        yield scene, talks.dialogue(scene, 3)


def test_phrasings_are_many_and_the_tests_are_never_trained() -> None:
    assert set(PHRASINGS) == set(TEST_PHRASINGS)
    for kind, texts in PHRASINGS.items():
        assert len(set(texts)) >= 8, kind
        assert len(set(TEST_PHRASINGS[kind])) >= 5, kind
        assert not set(texts) & set(TEST_PHRASINGS[kind]), kind


def test_every_type_comes_up_in_about_its_share() -> None:
    firsts = Counter(talk[0].kind for _, talk in exchanges() if talk)
    assert set(firsts) == set(SHARES)
    assert firsts["exists"] > firsts["compare"]


def test_yes_and_no_are_balanced() -> None:
    answers = Counter((e.kind, e.answer) for _, t in exchanges(3000) for e in t)
    for kind in ("exists", "relation"):
        yes, no = answers[kind, "Yes."], answers[kind, "No."]
        assert 0.42 < yes / (yes + no) < 0.58


def test_answers_follow_from_the_objects() -> None:
    for scene, talk in exchanges():
        for e in talk:
            named = [scene.objects[i] for i in e.first]
            if e.kind == "exists":
                assert (e.answer == "Yes.") == any(t.name == e.subject for t in scene.objects)
            elif e.kind == "where":
                assert e.answer.lower() == place(named[0]) + "."
            elif e.kind == "colour":
                assert e.answer.lower() == f"{named[0].colour}."
            elif e.kind in ("what", "side") and named[0].name == UNKNOWN:
                assert e.answer == UNKNOWN_ANSWER
            elif e.kind == "side":
                axis = 0 if e.subject in ("left", "right") else 1
                ends = [t.centre[axis] for t in scene.objects]
                best = min(ends) if e.subject in ("left", "top") else max(ends)
                assert named[0].centre[axis] == best


def test_follow_ups_need_the_turn_before() -> None:
    names = set(all_names())
    follows = [
        e for _, t in exchanges() for e in t[1:] if e.question.lower().rstrip("?.").endswith(" it")
    ]
    assert follows
    for e in follows:
        assert not any(f"the {n}" in e.question for n in names)
