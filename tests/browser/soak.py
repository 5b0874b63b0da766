"""One browser and seven streams of the engine's API at once: the longest time without a new token.

``python tests/browser/soak.py --seconds 20`` prints a table. The streams run inside the real
server's process, on the engine that the page uses; stalls count from an answer's first token on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

STREAMS = 7
LONGEST = 150.0  # seconds: it ends a hang, and decides nothing else
WATCH = """() => {
  const seen = window.soak = {longest: 0, tokens: 0};
  let length = 0, mark = 0;
  setInterval(() => {
    const words = document.querySelector('.turn.live .answer .words');
    const now = performance.now(), size = words ? words.innerText.length : 0;
    if (!words || !size) { length = 0; mark = 0; return; }
    if (size !== length) {
      if (mark) seen.longest = Math.max(seen.longest, now - mark);
      length = size; mark = now; seen.tokens += 1;
    }
  }, 10);
}"""


def stream(
    engine: Any, number: int, go: Path, until: threading.Event, figures: dict[str, Any]
) -> None:
    """From the file ``go`` on, ask again and again; keep the longest stall and the tokens."""
    from driver import picture

    from instructblip.engine.base import Request, SamplingParams

    rng, name = random.Random(number), f"soak-{number}"
    engine.register_picture(name, picture())
    while not go.exists():
        time.sleep(0.05)
    while not until.is_set():
        question = " ".join(
            rng.choices(("what", "is", "there", "red", "left"), k=rng.randrange(3, 60))
        )
        params = SamplingParams(max_new_tokens=64, min_new_tokens=48)
        mark = None
        for delta in engine.submit(Request(name, question, name, sampling=params)):
            now = time.monotonic()
            if delta.token_ids:
                if mark:
                    figures["longest"] = max(figures["longest"], now - mark)
                if not figures["tokens"]:
                    go.with_suffix(f".{number}").touch()
                mark, figures["tokens"] = now, figures["tokens"] + 1
            if delta.error is not None:
                figures["errors"] += 1


def serve(argv: Sequence[str]) -> int:
    """The real server, whose engine also has the streams; figures go to the file named first."""
    from webui.__main__ import load_engine, main

    out, until = Path(argv[0]), threading.Event()
    figures = [{"longest": 0.0, "tokens": 0, "errors": 0} for _ in range(STREAMS)]
    threads: list[threading.Thread] = []

    def make(settings: Any) -> Any:
        engine = load_engine(settings)
        for n, own in enumerate(figures):
            threads.append(
                threading.Thread(
                    target=stream, args=(engine, n, out.with_suffix(".go"), until, own), daemon=True
                )
            )
            threads[-1].start()
        return engine

    code = main(argv[1:], make)
    until.set()
    out.write_text(json.dumps(figures))
    return code


def measure(seconds: float) -> list[tuple[str, int, float]]:
    """(who, tokens or text updates, longest stall in seconds) of the streams and the browser."""
    import signal

    from driver import ARGUMENTS, Server, Talk, picture
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as folder, sync_playwright() as play:
        out = Path(folder) / "streams.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(out)]
        server = Server([*command, "--model", "embedded", "--device", "cpu"], Path(folder) / "data")
        server.start(120)
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        try:
            talk = Talk(browser.new_context(), server.url)
            talk.page.goto(talk.url + "?chat=new")
            talk.page.wait_for_selector("#log[role=log] .turns", state="attached", timeout=90_000)
            talk.give(picture())
            talk.page.evaluate(WATCH)
            out.with_suffix(".go").touch()
            began, answers, served = time.monotonic(), 0, False
            # On a busy machine it takes longer until everybody has had something.
            while time.monotonic() - began < (seconds if served else LONGEST):
                assert talk.ask("Describe the picture in detail.")
                answers += 1
                seen = talk.page.evaluate("() => window.soak")
                others = [out.with_suffix(f".{n}").exists() for n in range(STREAMS)]
                served = all(others) and seen["tokens"] > 0
        finally:
            browser.close()
            server.kill(signal.SIGTERM)
        rows = [
            (f"stream {n + 1}", own["tokens"], own["longest"])
            for n, own in enumerate(json.loads(out.read_text()))
        ]
    return [*rows, (f"browser, {answers} answers", seen["tokens"], seen["longest"] / 1000)]


def main() -> int:
    """Print the table."""
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    rows = measure(parser.parse_args().seconds)
    print("| who | tokens (browser: updates) | longest stall s |\n| --- | --- | --- |")
    for who, tokens, longest in rows:
        print(f"| {who} | {tokens} | {longest:.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
