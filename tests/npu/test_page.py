"""The page itself on the simulated NPU: a chat in a real Chromium says what it says on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.driver import ROOT, Server, Talk, chromium
from tests.npu.simulated import Simulated, environment

pytestmark = pytest.mark.browser
PICTURE = ROOT / "assets" / "examples" / "glasses.png"
# The last one is about the answer before it: without that it is answered otherwise.
QUESTIONS = ["What is in the picture?", "What is on the left?", "Where is it?"]
# Keeps what the running answer reads, each time that it changes.
WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const words = document.querySelector('.turn.live .answer .words')?.innerText.trim();
    if (words && words !== window.seen.at(-1)) window.seen.push(words);
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """``python -m webui --device npu`` where every fallback to the CPU is an error."""
    flags = ["--model", "embedded", "--device", "npu"]
    command = [sys.executable, "-m", "tests.npu.serve", *flags]
    env = environment()
    assert env["TORCH_NPU_FALLBACK_CPU_DISABLE"] == "1"
    made = Server(command, tmp_path / "data", environment=env)
    try:
        yield made.start(120)
    finally:  # also when it does not start
        made.kill()


@pytest.fixture
def talk(server: Server) -> Iterator[Talk]:
    """The open page. This browser ends with the test: another folder's may not run beside it."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
        yield Talk(context, server.url).open("?chat=new")
        context.close()


def test_a_chat_on_the_npu_says_what_it_says_on_the_cpu(
    talk: Talk, server: Server, npu: Simulated
) -> None:
    assert "npu:0 · float16" in talk.page.inner_text(".top .model")
    talk.page.click("#about summary")
    assert "npu:0, float16" in talk.page.inner_text("#about dl")

    talk.give(PICTURE.read_bytes())
    talk.page.evaluate(WATCH)
    answers = [talk.ask(question).strip() for question in QUESTIONS]
    seen = talk.page.evaluate("window.seen")
    assert all(any(answer.startswith(words) for answer in answers) for words in seen)
    assert set(seen) - set(answers), "no answer was seen while it grew"

    assert answers == npu.call("chats.pages_engine_on_the_cpu", str(PICTURE), QUESTIONS)
    assert answers[-1:] != npu.call("chats.pages_engine_on_the_cpu", str(PICTURE), QUESTIONS[-1:])
    assert talk.problems == []
    assert "ERROR" not in server.log()
