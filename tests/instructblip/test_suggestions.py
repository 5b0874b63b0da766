"""Offered questions suit the scene, in the asker's language."""

from instructblip.scenes import SHAPES, compose
from instructblip.suggestions import ask_suggestions
from instructblip.training import chinese


def test_suggestions_fit_the_scene() -> None:
    for seed in range(40):
        scene = compose(seed)
        names = {t.name for t in scene.objects}
        english, asked = ask_suggestions(scene), ask_suggestions(scene, "zh")
        assert len(english) == len(asked) >= 2
        for shape in SHAPES:
            if shape not in names:
                assert not any(f"the {shape}?" in question for question in english)
                assert not any(chinese.NAMES[shape] in question for question in asked)
        assert all(
            "\u4e00" <= question[0] <= "\u9fff" or "字母" in question or "数字" in question
            for question in asked
        )


def test_an_unknown_language_is_asked_in_english() -> None:
    assert ask_suggestions(compose(1), "fr") == ask_suggestions(compose(1), "en")
