"""Questions are answerable from the picture, balanced, and go on from one turn to the next."""

import functools
import itertools
import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from instructblip.scenes import UNKNOWN, Scene, Thing, compose
from instructblip.training import chinese, nouns
from instructblip.training.dialogues import SHARES, SPEECHES, Dialogues, all_names, words_of_grammar


@dataclass(frozen=True)
class Grounded:
    """A scene with a background that has a name."""

    image: object
    objects: tuple[Thing, ...]
    style: str
    ground: str | None


@functools.cache
def pool() -> list[Grounded]:
    """Composing takes longer than asking."""
    rng, scenes = random.Random(12), []
    for n in range(600):
        made = compose(rng, size=16, only="shape" if n % 5 == 0 else None)
        scenes.append(Grounded(made.image, made.objects, made.style, (None, "red", "teal")[n % 3]))
    return scenes


def scene_of(rng: random.Random) -> Grounded:
    return rng.choice(pool())


def exchanges(count: int = 1500, seed: int = 5, language: str | None = "en", turns: int = 3):
    rng = random.Random(seed)
    talks = Dialogues(rng, language=language)
    for _ in range(count):
        scene = scene_of(rng)
        yield scene, talks.dialogue(scene, turns)


def of_kind(kind: str, language: str = "en", count: int = 400, test: bool = False):
    """Single questions of a type, with their scenes."""
    rng = random.Random(f"{kind}{language}")
    talks = Dialogues(rng, test=test, language=language)
    while count:
        scene = scene_of(rng)
        for e in talks.dialogue(scene, 1, kind):
            count -= 1
            yield scene, e


# --- an oracle of its own: reads a noun phrase and looks in the scene --------------------------

HUES = {h: c for c, hs in nouns.COLOUR_SYNONYMS.items() for h in hs} | {
    c: c for c in ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray", "teal", "beige", "gold"]
}  # fmt: skip
NAMES = {n: n for n in all_names()} | {s: n for n, ss in nouns.SYNONYMS.items() for s in ss}
NAMES |= {f"digit {d}": f"number {d}" for d in range(2, 10)}
NAMES |= {
    f"number {w}": f"number {d}"
    for d, w in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine"], 2)
}
EDIBLE = {"food", "fruit", "vegetable"}
KINDS = {one: {group} for group, ways in nouns.GROUPS.items() for one, _, _ in ways}
KINDS |= {one: EDIBLE for one, _, _ in nouns.GROUPS["food"]}
HUES_ZH = {h: c for c, hs in chinese.COLOUR_SYNONYMS.items() for h in hs}
HUES_ZH |= {h: c for c, h in chinese.COLOURS.items()}
NAMES_ZH = {SPEECHES["zh"].one(n): n for n in all_names()}
NAMES_ZH |= {s: n for n, ss in chinese.SYNONYMS.items() for s in ss}
KINDS_ZH = {one: {group} for group, ways in chinese.GROUPS.items() for one in ways}
KINDS_ZH |= dict.fromkeys(chinese.GROUPS["food"], EDIBLE)


def meant(scene: Scene, phrase: str, language: str = "en") -> list[int]:
    """Indices of the objects that a noun phrase means."""
    hues, names, kinds = (HUES, NAMES, KINDS) if language == "en" else (HUES_ZH, NAMES_ZH, KINDS_ZH)
    colour = None
    if phrase not in names and phrase not in kinds:
        hue = max((h for h in hues if phrase.startswith(h)), key=len)
        phrase = phrase[len(hue) :].strip()
        colour = hues[hue]
        phrase = phrase.removeprefix("的")
        if phrase not in names and phrase not in kinds:  # 红色圆形 after 红
            raise AssertionError(phrase)
    if phrase in names:
        found = [i for i, t in enumerate(scene.objects) if t.name == names[phrase]]
    elif kinds[phrase] == {"thing"}:
        found = list(range(len(scene.objects)))
    else:
        found = [i for i, t in enumerate(scene.objects) if t.kind in kinds[phrase]]
    return [i for i in found if colour in (None, scene.objects[i].colour)]


def test_every_name_is_a_different_one_in_chinese() -> None:
    names = [SPEECHES["zh"].one(name) for name in all_names()]
    assert len(set(names)) == len(names)
    assert not any("a" <= c <= "z" for name in names for c in name)


def test_no_synonym_is_the_name_of_another_thing() -> None:
    for names, table in ((set(all_names()), nouns.SYNONYMS), (set(), chinese.SYNONYMS)):
        said = [s for ss in table.values() for s in ss]
        assert len(set(said)) == len(said)
        assert not set(said) & names
    main = {SPEECHES["zh"].one(n) for n in all_names()}
    assert not {s for ss in chinese.SYNONYMS.values() for s in ss} & main


@pytest.mark.parametrize("words", [nouns, chinese])
def test_strange_words_are_none_of_the_worlds_and_the_tests_are_their_own(words) -> None:
    known = set(NAMES) | set(KINDS) | set(NAMES_ZH) | set(KINDS_ZH)
    assert not known & {*words.STRANGE, *words.STRANGE_TEST}
    assert not set(words.STRANGE) & set(words.STRANGE_TEST)


def test_dialogues_mix_the_languages_in_about_their_shares() -> None:
    talks = [t for _, t in exchanges(1000, language=None) if t]
    chinese_ones = sum(any(c > "\u3000" for c in t[0].answer) for t in talks)
    assert 0.15 < chinese_ones / len(talks) < 0.35
    for talk in talks:
        for e in talk:
            if e.subject != "gibberish":
                asked, said = (any(c > "\u3000" for c in text) for text in (e.question, e.answer))
                assert asked == said, e


def test_a_foreign_picture_has_one_answer_in_the_askers_language() -> None:
    for language, speech in SPEECHES.items():
        talk = Dialogues(random.Random(1), language=language).outside(40, talk=0)
        assert {e.answer for e in talk} == {speech.outside}
        assert len({e.question for e in talk}) > 20
        assert {e.kind for e in talk} == {"outside"}


def test_small_talk_goes_on_about_a_foreign_picture_in_training_alone() -> None:
    talk = Dialogues(random.Random(1)).outside(600)
    assert 0.05 < sum(e.kind == "chat" for e in talk) / 600 < 0.2
    assert {e.kind for e in Dialogues(random.Random(1), test=True).outside(200)} == {"outside"}


def test_every_type_comes_up_in_about_its_share() -> None:
    firsts = Counter(talk[0].kind for _, talk in exchanges(3000) if talk)
    assert set(firsts) == set(SHARES)
    assert firsts["exists"] > firsts["compare"] / 1.2
    assert sum(SHARES.values()) == pytest.approx(100)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_yes_and_no_are_balanced(language: str) -> None:
    say = SPEECHES[language]
    answers = Counter((e.kind, e.answer) for _, t in exchanges(5000, language=language) for e in t)
    for kind in ("exists", "relation", "any", "both", "not", "number"):
        yes, no = (
            answers[kind, say.there(b)] + (say.there(b) != say.true(b)) * answers[kind, say.true(b)]
            for b in (True, False)
        )
        assert yes + no > 60, kind
        assert 0.38 < yes / (yes + no) < 0.62, (kind, yes, no)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_about_names_follow_from_the_objects(language: str) -> None:
    say = SPEECHES[language]
    for scene, talk in exchanges(language=language):
        for e in talk:
            named = [scene.objects[i] for i in e.first]
            if e.kind == "exists":
                assert e.answer == say.there(bool(named))
            elif e.kind in ("where", "colour") and not named:
                assert e.answer == say.missing(e.subject)
                assert all(t.name != e.subject for t in scene.objects)
            elif e.kind == "where":
                assert e.answer == say.where(named[0])
            elif e.kind == "colour":
                assert e.answer == say.colour(named[0].colour)
            elif e.kind in ("what", "side", "most") and named[0].name == UNKNOWN:
                assert e.answer in ("Something I do not know.", "我不认识的东西。")
            elif e.kind == "count" and e.subject:
                assert e.answer == say.number(sum(t.name == e.subject for t in scene.objects))
            elif e.kind == "side":
                axis = 0 if e.subject in ("left", "right") else 1
                ends = [t.centre[axis] for t in scene.objects]
                best = min(ends) if e.subject in ("left", "top") else max(ends)
                assert named[0].centre[axis] == best


@pytest.mark.parametrize("language", ["en", "zh"])
def test_kinds_and_colours_are_there_or_counted_or_listed_as_the_objects_say(
    language: str,
) -> None:
    say = SPEECHES[language]
    for kind in ("any", "list", "tally"):
        for scene, e in of_kind(kind, language):
            found = meant(scene, e.subject, language)
            found.sort(key=lambda i: scene.objects[i].centre[0])
            assert sorted(e.first) == sorted(found), e
            if kind == "any":
                assert e.answer == say.there(bool(found)), e
            elif kind == "tally":
                assert e.answer == say.number(len(found)), e
            else:
                assert e.answer == say.caption([scene.objects[i] for i in found], False), e


def test_a_list_of_nothing_says_none() -> None:
    answers = {e.answer for _, e in of_kind("list")}
    assert "None." in answers
    assert not any("None" in a and a != "None." for a in answers)


@pytest.mark.parametrize("test", [False, True])
def test_negated_existence_is_true_where_the_thing_is_not_there(test: bool) -> None:
    for scene, e in of_kind("not", test=test):
        there = bool(meant(scene, e.subject))
        text = e.question.lower()
        # "Isn't there ...?" expects the thing; every other form denies it.
        expects = re.search(r"n't (there|one|it true|you say)|nt there", text) or re.search(
            r"(don't|can't|do not|doesn't|doesnt|isn't|isnt) (you|the|this|it|that|a|an|any|some)\b", text
        )  # fmt: skip
        if "not" in text.split() and not re.search(r"do not you", text):
            expects = None
        if e.question == e.question.upper() or _odd(text):
            continue  # a slip of the finger may hide the word that decides
        assert e.answer == SPEECHES["en"].true(there == bool(expects)), (e, there)


def _odd(text: str) -> bool:
    """A typo is in the text: some word of it is no word of the grammar."""
    return any(w not in known_words() and len(w) > 1 for w in re.findall(r"[a-z]+", text))


@functools.cache
def known_words() -> set[str]:
    return words_of_grammar("en")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_two_conditions_mean_the_thing_of_that_colour(language: str) -> None:
    say, kinds = SPEECHES[language], Counter()
    for scene, e in of_kind("both", language, 600):
        named = [scene.objects[i] for i in e.first]
        if e.answer in (say.there(True), say.there(False)):
            assert sorted(e.first) == meant(scene, e.subject, language)
            assert e.answer == say.there(bool(named))
            kinds["exists"] += 1
        elif not named:
            assert e.answer.startswith(("There is no ", "没有"))
        else:
            assert e.answer in (say.thing(named[0]), say.where(named[0]))
            kinds["where" if e.answer == say.where(named[0]) else "what"] += 1
    assert min(kinds["exists"], kinds["where"], kinds["what"]) > 40


@pytest.mark.parametrize("language", ["en", "zh"])
def test_claims_about_the_number_hold_as_said(language: str) -> None:
    say = SPEECHES[language]
    for scene, e in of_kind("number", language):
        text = e.question.lower()
        found = range(len(scene.objects)) if not e.named else meant(scene, e.subject, language)
        if language == "zh" or _odd(text):
            assert e.answer in (say.true(True), say.true(False))
            continue
        rest = text.replace(e.subject.lower(), " ")
        number = re.search(
            r"\b(one|two|three|four|five|[1-5])\b", re.sub(r"(one question|another one)", "", rest)
        )
        assert number, e
        word = number[1]
        n = int(word) if word.isdigit() else ("one", "two", "three", "four", "five").index(word) + 1
        if "more than" in text:
            holds = len(found) > n
        elif "fewer than" in text or "less than" in text:
            holds = len(found) < n
        elif "at least" in text or "or more" in text:
            holds = len(found) >= n
        else:
            holds = len(found) == n
        assert e.answer == say.true(holds), e


def test_the_biggest_and_the_furthest_stand_out() -> None:
    seen = Counter()
    for scene, e in of_kind("most", count=500):
        thing, rest = (
            scene.objects[e.first[0]],
            [t for i, t in enumerate(scene.objects) if i != e.first[0]],
        )
        if e.subject == "biggest":
            assert all(thing.area >= 1.3 * t.area for t in rest)
        elif e.subject == "smallest":
            assert all(t.area >= 1.3 * thing.area for t in rest)
        else:
            axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[
                e.subject
            ]
            assert all((t.centre[axis] - thing.centre[axis]) * sign >= 0.08 for t in rest)
        assert e.answer == SPEECHES["en"].thing(thing)
        seen[e.subject] += 1
    assert len(seen) == 6


@pytest.mark.parametrize("language", ["en", "zh"])
def test_shapes_have_their_names_and_backgrounds_their_colours(language: str) -> None:
    say = SPEECHES[language]
    for scene, e in of_kind("shape", language):
        if e.first:
            thing = scene.objects[e.first[0]]
            assert (thing.kind, e.answer) == ("shape", say.shape(thing.name))
        else:
            assert e.answer.startswith(("There is no ", "没有"))
    for scene, e in of_kind("ground", language):
        assert e.answer == say.colour(scene.ground)
        assert not e.first
        assert not e.named


def test_a_scene_without_a_named_background_is_not_asked_for_it() -> None:
    plain = compose(3, size=16)
    if getattr(plain, "ground", None) is None:
        assert Dialogues(random.Random(1)).dialogue(plain, 1, "ground") == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_talk_and_strange_words_get_one_honest_sentence(language: str) -> None:
    said = nouns.SAID if language == "en" else chinese.SAID
    for kind in ("chat", "cannot"):
        seen = Counter()
        for _, e in of_kind(kind, language):
            assert e.answer == said[e.subject]
            assert not e.named
            seen[e.subject] += 1
        assert len(seen) >= 4
    strange = nouns.STRANGE if language == "en" else chinese.STRANGE
    held = nouns.STRANGE_TEST if language == "en" else chinese.STRANGE_TEST
    for test, words in ((False, strange), (True, held)):
        found = 0
        for _, e in of_kind("word", language, 100, test):
            assert e.answer == said["word"]
            found += any(w in e.question.lower() for w in words)
        assert found > 85  # of 100: the others are mistyped or plurals of their own


def test_follow_ups_need_the_turn_before() -> None:
    names = set(all_names())
    follows = [
        e for _, t in exchanges() for e in t[1:]
        if e.follows and e.question.lower().rstrip("?. ").endswith(" it")
    ]  # fmt: skip
    assert follows
    for e in follows:
        assert e.kind in ("relation", "compare") or not any(f"the {n}" in e.question for n in names)


def test_which_is_bigger_is_clear_from_what_is_visible() -> None:
    compared = 0
    for scene, talk in exchanges(2500):
        for e in talk:
            if e.kind == "compare":
                one, two = (scene.objects[g[0]] for g in (e.first, e.second))
                assert max(one.area, two.area) > 1.5 * min(one.area, two.area)
                text = e.question.lower()
                both = "smaller" in text and "bigger" in text
                big = both or re.search(
                    r"bigger|larger|how (big|does its size)|above or below", text
                )
                if _odd(text):
                    continue
                assert e.holds == ((one.area > two.area) == bool(big)), e
                winner = one if e.holds else two
                assert e.answer in (
                    SPEECHES["en"].winner(winner.name), "Yes." if e.holds else "No.",
                    "Bigger." if one.area > two.area else "Smaller.",
                )  # fmt: skip
                compared += 1
    assert compared > 40


def test_only_questions_that_go_on_from_the_turn_before_are_marked_so() -> None:
    marked = [(t[i - 1], e) for _, t in exchanges(3000) for i, e in enumerate(t) if e.follows]
    assert {e.kind for _, e in marked} == {
        "what", "colour", "where", "side", "exists", "relation", "compare", "count", "else",
    }  # fmt: skip
    assert not any(t[0].follows for _, t in exchanges(500) if t)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_is_clear_from_the_picture_and_the_turn_before_alone(language: str) -> None:
    """The two last questions with the last answer single out the thing that a follow-up means."""
    for scene, talk in exchanges(800, language=language, turns=8):
        for before, e in itertools.pairwise(talk):
            if not (e.follows and e.first and e.first == before.first):
                continue
            if e.kind not in ("what", "colour", "where"):
                continue
            about = scene.objects[e.first[0]]
            assert before.topic == e.first[0]
            if before.follows and before.kind == "where" and not _names(before.question, about):
                assert [t.cell for t in scene.objects].count(about.cell) == 1
            if before.follows and before.kind == "colour" and not _names(before.question, about):
                assert [t.colour for t in scene.objects].count(about.colour) == 1


def _names(question: str, thing: Thing) -> bool:
    table = NAMES | NAMES_ZH
    return any(
        word.lower() in question.lower() for word, name in table.items() if name == thing.name
    )


def test_what_else_lists_the_others() -> None:
    asked = 0
    for scene, talk in exchanges(2500):
        for before, e in itertools.pairwise(talk):
            if e.kind != "else":
                continue
            gone = {before.topic} if before.topic is not None else set(range(len(scene.objects)))
            rest = [t for i, t in enumerate(scene.objects) if i not in gone]
            rest.sort(key=lambda t: t.centre[0])
            want = SPEECHES["en"].caption(rest, False) if rest else "Nothing else."
            assert e.answer == want
            asked += 1
    assert asked > 50


@pytest.mark.parametrize("language", ["en", "zh"])
def test_forty_turns_over_one_scene_in_ever_other_words(language: str) -> None:
    turns, follows, again = 0, 0, 0
    for scene, talk in exchanges(40, language=language, turns=40):
        assert len(talk) == 40
        again += 40 - len({e.question for e in talk})
        if len(scene.objects) > 1:
            turns += 40
            follows += sum(e.follows for e in talk)
    assert 0.27 < follows / turns < 0.45
    assert again < 8
