"""Scores, guessing and the tables."""

import pytest

from instructblip.figures import NEEDS, Score, ablation_report, guessing, mean, normal, report


def asked(right: int, of: int, wanted: str = "Yes.") -> Score:
    score = Score()
    for i in range(of):
        score.add("?", wanted, wanted if i < right else "No.")
    return score


def test_exact_match_ignores_case_space_and_the_final_stop() -> None:
    assert normal(" A red  Circle.") == normal("a red circle")
    assert normal("a red circle") != normal("a circle")


def test_a_score_counts_right_answers_with_wilsons_interval() -> None:
    score = asked(90, 100)
    assert (score.share, score.exact, score.asked, len(score.wrong)) == (0.9, 90, 100, 10)
    low, high = score.interval()
    assert (low, high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))


def test_points_between_0_and_1_are_averaged() -> None:
    score = Score()
    score.add("?", "a and b", "a", points=2 / 3)
    score.add("?", "a", "a", points=1.0)
    assert score.share == pytest.approx(5 / 6)
    assert score.exact == 1
    low, high = score.interval()
    assert 0 < low < 5 / 6 < high <= 1


def test_a_refusal_of_a_scene_of_the_world_is_counted_in_both_languages() -> None:
    score = Score()
    score.add("?", "A cat.", "I don't recognise this picture.")
    score.add("?", "猫。", "我不认识这张图片。")
    score.add("?", "A cat.", "A dog.")
    assert score.refused == 2


def test_guessing_knows_the_form_of_the_answer() -> None:
    assert guessing("exists", asked(1, 2), "en") == 0.5
    assert guessing("where+", asked(1, 2), "en") == pytest.approx(1 / 9)
    captions = Score()
    captions.add("?", "A cat and a dog.", "")
    captions.add("?", "A cat and a bus.", "")
    assert guessing("caption", captions, "en") == 0.5


def test_tables_name_every_type_and_mark_what_a_type_needs() -> None:
    whole, less = (
        {"where": asked(9, 10), "what": asked(8, 10)},
        {"where": asked(1, 10), "what": asked(8, 10)},
    )
    assert mean(whole) == pytest.approx(0.85)
    assert "| where | 90.0% | 10 | 11.1% |" in report(whole)
    assert "where" in NEEDS["instruction"]
    table = ablation_report(whole, {"instruction": less}, "en")
    assert "| where | 90.0% | **10.0%** | 11.1% |" in table
    assert "| what | 80.0% | 80.0% |" in table
