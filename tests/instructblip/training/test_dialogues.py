"""Questions are answerable from the picture, balanced, and the tests' wording is their own."""

import random
from collections import Counter

import pytest

from instructblip.scenes import UNKNOWN, compose
from instructblip.training import chinese, phrasings
from instructblip.training.dialogues import SHARES, SPEECHES, Dialogues, all_names


def exchanges(count: int = 1500, seed: int = 5, language: str | None = "en"):
    rng = random.Random(seed)
    talks = Dialogues(rng, language=language)
    for _ in range(count):
        scene = compose(rng)
        yield scene, talks.dialogue(scene, 3)


@pytest.mark.parametrize("words", [phrasings, chinese])
def test_phrasings_are_many_and_the_tests_are_never_trained(words) -> None:
    assert set(words.PHRASINGS) == set(words.TEST_PHRASINGS) == set(phrasings.PHRASINGS)
    for kind, texts in words.PHRASINGS.items():
        assert len(set(texts)) >= 8, kind
        assert len(set(words.TEST_PHRASINGS[kind])) >= 5, kind
        assert not set(texts) & set(words.TEST_PHRASINGS[kind]), kind


def test_every_name_is_a_different_one_in_chinese() -> None:
    names = [SPEECHES["zh"].one(name) for name in all_names()]
    assert len(set(names)) == len(names)
    assert not any("a" <= c <= "z" for name in names for c in name)


def test_dialogues_mix_the_languages_in_about_their_shares() -> None:
    talks = [t for _, t in exchanges(1000, language=None) if t]
    chinese_ones = sum("\u4e00" <= t[0].question[0] <= "\u9fff" for t in talks)
    assert 0.15 < chinese_ones / len(talks) < 0.35
    for talk in talks:
        for e in talk:
            asked, said = (any(c > "\u3000" for c in text) for text in (e.question, e.answer))
            assert asked == said, e


def test_a_foreign_picture_has_one_answer_in_the_askers_language() -> None:
    for language, speech in SPEECHES.items():
        talk = Dialogues(random.Random(1), language=language).outside(40)
        assert {e.answer for e in talk} == {speech.outside}
        assert len({e.question for e in talk}) > 20


def test_every_type_comes_up_in_about_its_share() -> None:
    firsts = Counter(talk[0].kind for _, talk in exchanges() if talk)
    assert set(firsts) == set(SHARES)
    assert firsts["exists"] > firsts["compare"]


def test_yes_and_no_are_balanced() -> None:
    answers = Counter((e.kind, e.answer) for _, t in exchanges(3000) for e in t)
    for kind in ("exists", "relation"):
        yes, no = answers[kind, "Yes."], answers[kind, "No."]
        assert 0.42 < yes / (yes + no) < 0.58


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_follow_from_the_objects(language: str) -> None:
    say = SPEECHES[language]
    for scene, talk in exchanges(language=language):
        for e in talk:
            named = [scene.objects[i] for i in e.first]
            if e.kind == "exists":
                found = any(t.name == e.subject for t in scene.objects)
                assert e.answer == say.there(found)
            elif e.kind == "where":
                assert e.answer == say.where(named[0])
            elif e.kind == "colour":
                assert e.answer == say.colour(named[0].colour)
            elif e.kind in ("what", "side") and named[0].name == UNKNOWN:
                assert e.answer in ("Something I do not know.", "我不认识的东西。")
            elif e.kind == "count" and e.subject:
                assert e.answer == say.number(sum(t.name == e.subject for t in scene.objects))
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


def test_which_is_bigger_is_clear_from_what_is_visible() -> None:
    compared = 0
    for scene, talk in exchanges(2500):
        for e in talk:
            if e.kind == "compare":
                one, two = (scene.objects[g[0]] for g in (e.first, e.second))
                assert max(one.area, two.area) > 1.5 * min(one.area, two.area)
                winner = one if e.holds else two
                bigger = any(w in e.question.lower() for w in ("bigger", "larger"))
                assert (winner.area == max(one.area, two.area)) == bigger, e
                assert e.answer == SPEECHES["en"].winner(winner.name)
                compared += 1
    assert compared > 40


def test_only_questions_that_go_on_from_the_turn_before_are_marked_so() -> None:
    marked = [(t[i - 1], e) for _, t in exchanges(3000) for i, e in enumerate(t) if e.follows]
    assert {e.kind for _, e in marked} == {"what", "colour", "where", "side", "exists", "relation"}
    for before, e in marked:
        if e.kind in ("what", "colour", "where"):
            assert e.first == before.first, (before, e)
    assert not any(t[0].follows for _, t in exchanges(500) if t)
