"""The line under the title: which model answers, where, and the licence of its weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instructblip.engine.base import ModelCard
from webui.render import header

CARD = ModelCard(
    name="Model <7B>", device="npu:0", dtype="float16", licence="research only, <non-commercial>",
    default_layout="refresh", layouts=("refresh",), context_length=2048, image_size=224, tokenizer="",
)  # fmt: skip


@pytest.mark.parametrize(
    ("language", "label"), [("en", "licence of the weights: "), ("zh", "权重许可证：")]
)
def test_the_model_line_shows_the_licence(language: str, label: str) -> None:
    html = header(CARD, language)
    line = html.partition('<p class="model"')[2].partition("</p>")[0]
    shown = f"Model &lt;7B&gt; · npu:0 · float16 · {label}research only, &lt;non-commercial&gt;"
    assert line.endswith(f">{shown}")
    assert f'title="{shown}"' in line  # whole, where the line is cut


def test_no_licence_no_label() -> None:
    line = header(replace(CARD, licence=""), "en").partition('<p class="model"')[2]
    assert line.partition("</p>")[0].endswith("npu:0 · float16")


def test_official_weights_name_their_licence() -> None:
    from instructblip.properties import official_properties

    licence = official_properties("x", query_tokens=32, image_size=224, context=2048).licence
    assert "non-commercial" in licence
