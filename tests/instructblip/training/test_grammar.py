"""Rules are lines of text; the test's constructions are never made by training; forms are many."""

import functools
import json
import random
import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructblip.checkpoints import EMBEDDED
from instructblip.scenes import compose
from instructblip.suggestions import ask_suggestions
from instructblip.training import chinese, nouns
from instructblip.training.about import ABOUT
from instructblip.training.dialogues import (
    SHARES,
    SPEECHES,
    Dialogues,
    all_names,
    words_of_grammar,
)
from instructblip.training.grammar import Grammar

SMALL = Grammar(
    {"pic": "(image|picture)", "in": "[in the <pic>]"},
    {"where": "++ where is {x} <in>\n# a remark\n! {x}(: where|, where is it)[ now]", "end": "go."},
)
SLOTS = dict.fromkeys(
    [
        "x",
        "a_x",
        "xs",
        "m",
        "y",
        "a_y",
        "ys",
        "m_y",
        "place",
        "side",
        "how",
        "best",
        "n",
        "hue",
        "d",
        "junk",
        "end",
    ],
    "Q",
)
# Types of few words by nature.
SHORT = {"bye", "thanks", "hello", "who", "can", "gibberish"}


def draws(grammar: Grammar, name: str, test: bool = False) -> set[str]:
    rng = random.Random(1)
    return {grammar.draw(rng, name, test) for _ in range(300)}


def test_a_line_is_a_construction_with_choices_and_options() -> None:
    assert draws(SMALL, "where") == {
        "where is {x}", "where is {x} in the image", "where is {x} in the picture",
    }  # fmt: skip
    assert draws(SMALL, "where", True) == {
        f"{{x}}{a}{b}" for a in (": where", ", where is it") for b in ("", " now")
    }
    assert draws(SMALL, "end") == {"go."}
    assert [r.weight for r in SMALL.rules["where"]] == [3, 1]


@pytest.mark.parametrize("line", ["where (is", "where is)", "where [is)", "<nothing> is", "a < b"])
def test_a_rule_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"\(|\)|\[|<"):
        Grammar({}, {"where": line})


def test_half_of_the_options_are_there_and_weights_count() -> None:
    rng, grammar = random.Random(2), Grammar({}, {"a": "+++ x[y]\nz"})
    drawn = [grammar.draw(rng, "a") for _ in range(4000)]
    assert 0.17 < drawn.count("z") / 4000 < 0.23
    assert 0.36 < drawn.count("xy") / 4000 < 0.44


@given(st.integers(0, 10**9), st.sampled_from(["en", "zh"]), st.booleans(), st.data())
def test_every_question_is_whole(seed: int, language: str, test: bool, data: st.DataObject) -> None:
    say = SPEECHES[language]
    kind = data.draw(st.sampled_from(sorted(set(say.grammar.rules) - {"frame"})))
    text = say.ask(random.Random(seed), kind, test, SLOTS)
    assert text.strip()
    assert not set("{}<>[]|#") & set(text), text
    assert "  " not in text, text
    if language == "zh" and kind != "gibberish":
        assert not re.search(r"[a-pr-z ]{3}", text), text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_at_least_a_seventh_of_each_types_constructions_is_kept_for_the_test(language: str) -> None:
    for name, rules in SPEECHES[language].grammar.rules.items():
        kept = sum(rule.test for rule in rules)
        assert kept >= 2, name
        assert kept / len(rules) >= 0.15, name


def test_both_languages_ask_the_same_types() -> None:
    assert set(SPEECHES["en"].grammar.rules) == set(SPEECHES["zh"].grammar.rules)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_question_of_the_test_is_one_that_training_can_make(language: str) -> None:
    rng = random.Random(4)
    scenes = [compose(rng, size=16) for _ in range(150)]
    trained, tested = (_asked(rng, language, scenes, test) for test in (False, True))
    assert len(trained) > 7000
    assert len(tested) > 5000
    assert not trained & tested, sorted(trained & tested)[:10]


def _asked(rng: random.Random, language: str, scenes: list, test: bool) -> set[str]:
    """20,000 questions of all types and follow-ups, bare of case and punctuation."""
    talks, seen, drawn, kinds = Dialogues(rng, test, language), set(), 0, list(SHARES)
    while drawn < 20_000:
        scene = scenes[drawn % len(scenes)]
        talk = talks.dialogue(scene, 4, kinds[drawn % len(kinds)]) + talks.outside(1, talk=0.2)
        drawn += len(talk)
        seen |= {re.sub(r"[\W_]+", " ", e.question.lower()).strip() for e in talk}
    return seen


@pytest.mark.parametrize("language", ["en", "zh"])
def test_rules_of_the_test_share_no_form_with_training_whatever_fills_the_places(
    language: str,
) -> None:
    """Cores alone, so that a rare overlap does not hide among names and frames."""
    grammar, rng = SPEECHES[language].grammar, random.Random(5)
    forms: dict[bool, dict[str, str]] = defaultdict(dict)
    for test in (False, True):
        for name in set(grammar.rules) - {"frame", "gibberish"}:
            for _ in range(1500):
                core = re.sub(r"[^\w{}]+", " ", grammar.draw(rng, name, test)).strip()
                forms[test][core] = name
    shared = {f: (forms[False][f], forms[True][f]) for f in forms[True] if f in forms[False]}
    assert not shared


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_type_of_first_question_has_hundreds_of_forms_with_the_same_names(
    language: str,
) -> None:
    rng, say = random.Random(6), SPEECHES[language]
    scenes = [compose(rng, size=16) for _ in range(60)]
    for kind in set(SHARES) - {"ground"}:
        talks, seen, drawn = Dialogues(rng, language=language), set(), 0
        while drawn < 1500:
            for e in talks.dialogue(scenes[drawn % 60], 1, kind) or [None]:
                drawn += 1
                if e is not None:
                    seen.add(e.question.lower())
        assert len(seen) > 250, kind
    for rule in set(say.grammar.rules) - {"frame"} - SHORT:
        assert len({say.ask(rng, rule, False, SLOTS) for _ in range(1500)}) > 150, rule


def test_the_vocabulary_holds_what_is_asked_and_said_but_no_strange_words() -> None:
    rng = random.Random(7)
    words = words_of_grammar("en")
    assert {"rectangle", "teal", "leftmost", "background", "whereabouts"} <= words
    assert not {"zebra", "sofa", "walrus"} & words
    letters = words_of_grammar("zh")
    assert all(len(c) == 1 for c in letters)
    talks = Dialogues(rng, language="zh")
    for _ in range(150):
        for e in talks.dialogue(compose(rng, size=16), 8):
            if e.subject != "gibberish":
                assert set(re.findall("[\u4e00-\u9fff]", e.question + e.answer)) <= letters, e


def _pattern(parts) -> str:
    """A rule as a regular expression; a place takes a word of the world."""
    return "".join(
        re.sub(r"\\{\w+\\}", "(.+?)", re.escape(part))
        if isinstance(part, str)
        else "(?:" + "|".join(_pattern(choice) for choice in part) + ")"
        for part in parts
    )


def _bare(text: str, language: str) -> str:
    return (
        re.sub(r"\s+", " " if language == "en" else "", re.sub(r"[?？。.]", "", text))
        .lower()
        .strip()
    )


@functools.cache
def _fill(language: str) -> set[str]:
    """What may stand in a place: names, groups, places, relations."""
    rng, say, found = random.Random(8), SPEECHES[language], set()
    for name in all_names():
        for _ in range(8):
            found |= set(say.noun(rng, name).values())
    for group in chinese.GROUPS:
        for _ in range(20):
            found |= set(say.group(rng, group).values()) | set(
                say.group(rng, group, colour="red").values()
            )
    table = nouns.WORDS if language == "en" else chinese.WORDS
    found |= {w for words in table.values() for w in words}
    found |= {say.figure(rng, n) for n in range(1, 6) for _ in range(9)}
    return {_bare(w, language) for w in found}


@functools.cache
def _patterns(language: str) -> list[re.Pattern[str]]:
    made = []
    for name, rules in SPEECHES[language].grammar.rules.items():
        for rule in rules:
            if name not in ("frame", "gibberish") and not rule.test:
                text = _pattern(rule.parts).replace("\\.", "").replace("。", "").lower()
                made.append(
                    re.compile(
                        text.replace("\\ ", " *")
                        if language == "zh"
                        else re.sub(r"(\\ )+", r" *(?!(?<=\\w)\\w)", text)
                    )
                )
    return made


def _covered(question: str, language: str) -> bool:
    """Some rule of training makes it."""
    text, words = _bare(question, language), _fill(language) | {None}
    matches = (p.fullmatch(text) for p in _patterns(language))
    return any(m is not None and set(m.groups()) <= words for m in matches)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_training_makes_every_question_that_the_page_offers(language: str) -> None:
    examples = EMBEDDED.parent / "examples" / "examples.json"
    asked = [q for e in json.loads(examples.read_text("utf-8")) for q in e["questions"][language]]
    asked += ABOUT["can_ask"][language]
    for seed in range(30):
        asked += ask_suggestions(compose(seed, size=16), language)
    for question in asked:
        assert _covered(question, language), question
    assert not _covered("Does it rain cats?" if language == "en" else "下雨吗下雨", language)
