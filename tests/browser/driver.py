"""What the browser tests do to the page, in words: ask, wait, read, press."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEXTAREA = "#box textarea"
PATIENCE = 90.0  # seconds for what will come: it ends a hang and decides nothing else
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine; only one at a time in a process."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def picture(colour: str = "#c02020", size: tuple[int, int] = (120, 90), kind: str = "PNG") -> bytes:
    """A small real picture."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((10, 10, size[0] - 10, size[1] - 10), fill=colour)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def upload(data: bytes, name: str = "p.png", mime: str = "image/png") -> Any:
    """A file as Playwright's ``set_input_files`` takes it."""
    return {"name": name, "mimeType": mime, "buffer": data}


class Server:
    """The real server in a process of its own, which a test may kill and start again.

    ``environment``: of the process, in place of this one's with the repository on its path.
    """

    def __init__(
        self, command: list[str], data: Path, port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._command = [*command, "--port", str(self.port), "--data", str(data)]
        self._environment = environment or {**os.environ, "PYTHONPATH": str(ROOT)}
        self.data = data
        self._log = data.parent / f"server-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 200.0) -> Server:
        """Start and wait until it answers."""
        environment = {**self._environment, "GRADIO_ANALYTICS_ENABLED": "False"}
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment
            )
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + "healthz", timeout=PATIENCE):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{self.log()[-3000:]}")

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End the process and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)

    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""


def slow_server(
    data: Path, delay: float = 0.05, slots: int = 4, flags: Sequence[str] = ()
) -> Server:
    """The real page and backend on an engine that is slow on purpose."""
    script = str(HERE / "serve.py")
    own = ("--delay", str(delay), "--slots", str(slots))
    return Server([sys.executable, script, *own, *flags], data)


class Talk:
    """One tab."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.problems: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", self._request)

    def open(self, query: str = "") -> Talk:
        """Load the page and wait until it is drawn."""
        self.page.goto(self.url + query)
        return self.ready()

    def ready(self) -> Talk:
        """Wait until the conversation or the welcome is there."""
        self.page.wait_for_selector("#log[role=log] .turns", state="attached")
        return self

    def reload(self) -> Talk:
        """Load the page anew. Gradio reports its own cut connections as errors; those are none."""
        before = list(self.problems)
        self.page.reload()
        self.ready()
        cut = ("AbortError", "Connection errored out")
        self.problems[:] = before + [
            p for p in self.problems[len(before) :] if not any(word in p for word in cut)
        ]
        return self

    def give(self, data: bytes, name: str = "p.png", mime: str = "image/png") -> None:
        """Choose a picture file in the picture box and wait until it is the next question's."""
        before = self.current_picture()
        self.page.set_input_files("#picture input[type=file]", upload(data, name, mime))
        self.page.wait_for_function(
            "before => { const i = document.querySelector('#strip img');"
            " return i && i.getAttribute('src') !== before }",
            arg=before,
        )

    def current_picture(self) -> str:
        """The address of the next question's picture."""
        image = self.page.query_selector("#strip img")
        return (image.get_attribute("src") or "") if image else ""

    def write(self, words: str) -> None:
        """Type into the box."""
        self.page.fill(TEXTAREA, words)

    def send(self, words: str) -> None:
        """Type and press Enter."""
        self.write(words)
        self.page.press(TEXTAREA, "Enter")

    def ask(self, words: str) -> str:
        """Type, send, wait for the whole answer."""
        count = self.page.locator(".turns .turn").count()
        self.send(words)
        self.page.wait_for_function(
            "count => document.querySelectorAll('.turns .turn').length > count"
            " && !document.querySelector('.turn.live')",
            arg=count,
        )
        return self.answers()[-1]

    def pause(self, milliseconds: float = 250) -> None:
        """Let the page do what an event set off: a time, and on a busy machine until it is idle."""
        self.page.wait_for_timeout(milliseconds)
        self.page.evaluate(
            "() => new Promise(done => requestIdleCallback(() => requestIdleCallback(done)))"
        )

    def stop(self) -> None:
        """Stop the running answer, and wait until it says so."""
        self.page.click("#box .stop-button")
        self.wait_idle()
        assert self.page.locator(".turns .note").last.inner_text().startswith("Stopped")

    def wait_idle(self) -> None:
        """Wait until no answer is being written."""
        self.page.wait_for_selector(".turn.live", state="detached")

    def wait_words(self, pattern: str) -> None:
        """Wait until the running answer matches a regular expression."""
        self.page.wait_for_function(
            "p => new RegExp(p).test(document.querySelector('.turn.live .answer .words')?.innerText || '')",
            arg=pattern,
        )

    def running_text(self) -> str:
        """The running answer so far."""
        words = self.page.query_selector(".turn.live .answer .words")
        return words.inner_text() if words else ""

    def answers(self) -> list[str]:
        """All finished answers shown."""
        return self.page.locator(".turns .answer > .words").all_inner_texts()

    def widths(self) -> list[int]:
        """Natural widths of the turns' pictures, when they have come."""
        thumbs = "[...document.querySelectorAll('.turns .thumb img')]"
        self.page.wait_for_function(f"{thumbs}.every(i => i.complete)")
        found: list[int] = self.page.evaluate(f"{thumbs}.map(i => i.naturalWidth)")
        return found

    def questions(self) -> list[str]:
        """All questions of finished turns shown."""
        return self.page.locator(".turns .question .words").all_inner_texts()

    def notice(self) -> str:
        """The line above the box, waited for."""
        self.page.wait_for_selector(".notice")
        return self.page.inner_text(".notice")

    def text(self) -> str:
        """What stands in the box."""
        return self.page.input_value(TEXTAREA)

    def press(self, act: str, number: int = -1) -> None:
        """A button of our own HTML, by its action; hidden ones are shown by hovering."""
        buttons = self.page.locator(f"[data-act={act}]:visible, .turns [data-act={act}]")
        button = buttons.nth(number if number >= 0 else buttons.count() + number)
        button.scroll_into_view_if_needed()
        button.hover(force=True)
        button.click(force=True)

    def menu(self) -> None:
        """Open the drawer."""
        if not self.page.query_selector(".sidebar.open"):
            self.page.click(".sidebar .toggle-button")
            self.page.wait_for_selector(".sidebar.open")
            self.pause(350)

    def settings(self) -> None:
        """Open the answer settings. Gradio draws them now and sets their values a moment later."""
        self.menu()
        self.page.click("#settings button")
        self.page.wait_for_selector("#set-top_p input")
        self.pause()

    def preset(self) -> str:
        """The chosen preset of the open answer settings; empty when the values are somebody's own."""
        chosen = self.page.query_selector("#preset label:has(input:checked)")
        return chosen.inner_text().strip() if chosen else ""

    def choose_preset(self, name: str) -> None:
        """Click on a preset in the open answer settings, and let the fields follow."""
        self.page.click(f"#preset label:has-text('{name}')")
        self.pause(300)

    def _console(self, message: Any) -> None:
        where = message.location.get("url", "")
        # The browser reports a refused upload, of which the page tells in words, as an error.
        refused = "/gradio_api/upload?" in where and "status of 4" in message.text
        if message.type == "error" and not refused:
            self.problems.append(f"console: {message.text} ({where})")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.problems.append(f"outside request: {request.url}")
