"""A folder in LAVIS's layout behind the page: first answers are LAVIS's own, greedy and with beams."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import ROOT, Server, Talk

DATA = ROOT / "tests" / "oracle" / "data"
CASE = next(
    case
    for case in json.loads((DATA / "expected.json").read_text())["cases"]
    if case["id"] == "basic"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``python -m webui --model DIR`` as a user starts it; fp32 is LAVIS's arithmetic on a CPU."""
    data: Path = tmp_path_factory.mktemp("lavis") / "data"
    flags = ["--model", str(DATA), "--device", "cpu", "--dtype", "fp32"]
    running = Server([sys.executable, "-m", "webui", *flags], data).start(120)
    yield running
    running.kill()


@pytest.fixture
def seeing(tabs: Callable[..., Talk]) -> Talk:
    """A page with the case's picture in place, and the answer settings open."""
    talk = tabs().open("?chat=new")
    talk.give((DATA / "images" / CASE["images"][0]).read_bytes())
    talk.settings()
    return talk


def test_greedy_then_beams_then_sampling_in_one_chat(seeing: Talk) -> None:
    line = seeing.page.inner_text(".top .model")
    assert "licence of the weights: research use only, non-commercial" in line
    (question,) = CASE["prompts"]
    assert seeing.ask(question) == CASE["generate"]["greedy_rp1.5"]["text"][0]
    seeing.choose_preset("LAVIS beams")
    assert seeing.ask("And where?")
    assert "5 beams" in seeing.page.locator(".stats").last.inner_text()
    seeing.choose_preset("Creative")
    assert seeing.ask("What colour is it?")
    assert len(seeing.answers()) == 3


@pytest.mark.parametrize("layout", ["refresh", "keep", "append"])
def test_the_first_answer_with_beams_is_laviss_in_every_layout(seeing: Talk, layout: str) -> None:
    seeing.choose_preset("LAVIS beams")
    seeing.page.click("#set-layout input")
    seeing.page.click(f"[role=option]:has-text('{layout}')")
    seeing.pause()
    (question,) = CASE["prompts"]
    wanted = CASE["generate"]["lavis_default_beam5"]["text"][0]
    assert seeing.ask(question) == wanted
    for more in ("And where?", "What colour is it?"):
        assert seeing.ask(more)
    assert seeing.answers()[0] == wanted


def test_the_licence_is_whole_on_a_phone(tabs: Callable[..., Talk]) -> None:
    talk = tabs(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    talk.open("?chat=new")
    line = talk.page.locator(".top .model")
    assert "non-commercial" in line.inner_text()
    assert line.evaluate("line => line.scrollHeight - line.clientHeight") <= 1
    assert talk.page.evaluate("document.documentElement.scrollWidth") <= 390
