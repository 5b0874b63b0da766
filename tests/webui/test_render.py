"""The line under the title, the state of a running answer, and the figures of a finished one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from instructblip.engine.base import ModelCard, Phase, Statistics
from webui.records import Turn
from webui.render import header, running, statistics
from webui.runs import Snapshot

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


# --- a running answer ------------------------------------------------------------------------------

TURN = Turn(
    id="t", chat_id="c", parent_id=None, question="q", picture_id="p", answer="", answer_ids=(),
    qformer_text="", tokenizer="", finish=None, error="", statistics={}, created=0.0,
    parameters={"sampling": {"num_beams": 5}, "layout": None},
)  # fmt: skip


def shown(language: str = "en", turn: Turn = TURN, **values: Any) -> str:
    start = Snapshot("t", "", Phase.DECODE.value, 0, None, None, Statistics())
    return running(turn, "", replace(start, **values), language)


def test_a_beam_search_shows_how_far_it_is_and_then_its_text() -> None:
    before = shown()
    assert "Answering…" in before
    assert "<progress" not in before
    html = shown(progress=0.12)
    assert '<progress max="1" value="0.120" aria-label="Progress of the beam search"' in html
    assert "Comparing 5 beams… 12 % of the longest answer" in html
    assert "12%" in shown("zh", progress=0.12)
    done = shown(progress=0.2, text="a <cat>")
    assert "a &lt;cat&gt;" in done
    assert "<progress" not in done


def test_who_waits_is_told_the_place_and_the_time_left_where_it_is_known() -> None:
    waiting = {"phase": Phase.WAITING.value, "place": 2}
    assert ">2nd in line…<" in shown(**waiting)
    now = time.monotonic()
    assert ">2nd in line, about 12 s…<" in shown(**waiting, due=now + 11.9)
    assert ">2nd in line, about 3 min…<" in shown(**waiting, due=now + 180.5)
    assert ">排在第 2 位，约 12 秒…<" in shown("zh", **waiting, due=now + 11.9)
    assert ">2nd in line…<" in shown(**waiting, due=now - 5)  # it takes longer than was thought


def test_turns_of_before_there_were_beams_are_shown() -> None:
    old = replace(TURN, parameters={"sampling": {"temperature": 0.0}})
    assert "Answering…" in shown(turn=old)
    assert "Answering…" in shown(turn=replace(TURN, parameters={}))


def test_the_time_of_a_beam_search_is_that_of_its_answer() -> None:
    values = {"new_tokens": 9, "first_token": 3.21, "decode": 0.0}
    assert statistics(values, "en", 5) == "3.2 s · 5 beams · 9 tokens"
    assert statistics(values, "en") == "first token 3.2 s · 9 tokens"
