"""Gradio's boxes as the page has them."""

import pytest

from webui.components import PictureBox, QuestionBox


@pytest.mark.parametrize("kind", [PictureBox, QuestionBox])
def test_a_box_that_is_made_anew_makes_no_schema_anew(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = kind().api_info()
    monkeypatch.setattr(kind.data_model, "model_json_schema", lambda: pytest.fail("made anew"))
    again = kind().api_info()
    assert again == known
    again["title"] = "changed"
    assert kind().api_info() == known
