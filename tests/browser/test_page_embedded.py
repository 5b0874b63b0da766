"""The embedded model behind the page: right answers over three turns, and figures under them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import ROOT, Server, Talk

EXAMPLES = ROOT / "assets" / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``python -m webui`` as a user starts it."""
    if not (ROOT / "assets" / "embedded").is_dir():
        pytest.skip("the embedded model's weights are not there")
    data: Path = tmp_path_factory.mktemp("embedded") / "data"
    command = [sys.executable, "-m", "webui", "--model", "embedded", "--device", "cpu"]
    running = Server(command, data).start(120)
    yield running
    running.kill()


def test_three_turns_with_right_answers(tabs: Callable[..., Talk], server: Server) -> None:
    talk = tabs().open("?chat=new")
    talk.give((EXAMPLES / "glasses.png").read_bytes())
    assert "glasses" in talk.ask("What is on the left?").lower()
    assert "red" in talk.ask("What colour is the diamond?").lower()
    talk.give((EXAMPLES / "hamburger.png").read_bytes())
    assert "hamburger" in talk.ask("What is on the right?").lower()
    for line in talk.page.locator(".stats").all_inner_texts():
        assert re.match(r"first token [\d.]+ m?s · ", line), line
    pictures = [i.get_attribute("src") for i in talk.page.query_selector_all(".turns .thumb img")]
    assert pictures[0] == pictures[1] != pictures[2]

    # A killed server that starts again shows the same chat, and it goes on.
    before = talk.answers()
    server.kill()
    talk.pause(300)
    server.start(120)
    talk.reload()
    talk.page.wait_for_selector(".turns .turn")
    assert talk.answers() == before
    assert "orange" in talk.ask("What colour is the star?").lower()
    talk.problems.clear()  # the lost connection itself


def test_new_scene_and_the_model_line(tabs: Callable[..., Talk]) -> None:
    talk = tabs().open("?chat=new")
    line = talk.page.inner_text(".top .model")
    assert "cpu" in line
    assert "licence of the weights: Apache-2.0" in line
    talk.page.click("#scene")
    talk.page.wait_for_selector(".offers .chip")
    asked = talk.page.locator(".offers .chip").first.inner_text()
    assert len(talk.ask(asked)) > 2
    talk.page.click("#about summary")
    assert "Apache-2.0" in talk.page.inner_text("#about dl")
