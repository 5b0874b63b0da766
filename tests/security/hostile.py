"""One hostile visitor, a process of his own: pictures, bodies, connections and files at once.

``python tests/security/hostile.py URL COOKIES --seconds S [--only AEGH] [--rate R]``. He has many
cookies (a file of them, one a line) and uses the next one for each request. Everything is made
before the start, and each attack keeps to a rate, so that he costs the two cores little himself;
how much, he says at the end as one line of JSON. ``--burn SHARE``: instead he only works, so much
of a core, for the comparison.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.security.strangers import GRADIO, Stranger
from tests.tiny_picture import picture
from tests.webui.hostile_pictures import flat_png, many_scans

_PREDICT, _JOIN, _UPLOAD = (f"{GRADIO}/{path}" for path in ("run/predict", "queue/join", "upload"))
_HELD = 300  # half-sent requests, and as many idle ones and unread streams, at once
_HALVES = (
    b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: a",
    b"POST /gradio_api/run/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{",
    b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n--x\r\n",
    b"GET /theme.css HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


class Hostile:
    """All attacks on one server; each :meth:`step <attacks>` is one request or a few."""

    def __init__(self, url: str, cookies: list[str]) -> None:
        self._address = ("127.0.0.1", urlsplit(url).port or 80)
        self._cookies = itertools.cycle(cookies)
        page = Stranger(url)
        self._search = json.dumps(page.body("search", "change", "WORDS"))
        self._submit = json.dumps(page.body("box", "submit", {"text": "FIRST", "files": []}))
        self._join = json.dumps({**page.body("box", "stop"), "data": [None]})
        page.http.close()
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        self._pictures = itertools.cycle((
            many_scans(8000, 310), flat_png(1, 64_000_000), flat_png(8000, 8000),
            many_scans(2000, 900), flat_png(30_000, 2_000, 8),
        ))  # fmt: skip
        self._bodies = itertools.cycle(self._make_bodies())
        self._files = itertools.cycle(self._make_files())
        self._held: deque[socket.socket] = deque()
        self._drips: list[socket.socket] = []

    def attacks(self) -> dict[str, list[tuple[Callable[[], None], float, int]]]:
        """Letter → (step, seconds between two of them, threads)."""
        return {
            "A": [(self._picture, 0.2, 12)],
            "E": [(self._tiny, 0.05, 2), (self._body, 0.1, 2)],
            "G": [(self._half, 0.01, 1), (self._drip, 1.0, 1), (self._unread, 0.1, 1)],
            "H": [(self._file, 0.1, 2)],
        }

    def run(self, seconds: float, only: str, rate: float) -> None:
        """Do it all until the time is over, or SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: self._over.set())
        for letter in only:
            for step, pause, threads in self.attacks()[letter]:
                for _ in range(threads):
                    work = (letter + step.__name__, step, pause / rate)
                    threading.Thread(target=self._repeat, args=work, daemon=True).start()
        self._over.wait(seconds)
        self._over.set()

    def _repeat(self, name: str, step: Callable[[], None], pause: float) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                step()
                self.counts[name] += 1
            except (OSError, http.client.HTTPException, ValueError):  # refused, as it should be
                self.counts[name + " cut"] += 1
            self._over.wait(max(pause - (time.monotonic() - began), 0))

    # --- A ---------------------------------------------------------------------------------------

    def _picture(self) -> None:
        """A heavy picture, uploaded and asked about."""
        cookie = next(self._cookies)
        kind, form = _form([("p.png", next(self._pictures))])
        answer = self._post(_UPLOAD, form, kind, cookie)
        file = {"path": json.loads(answer)[0], "meta": {"_type": "gradio.FileData"}}
        body = json.loads(self._event(self._submit))
        body["data"][0] = {"text": "What is on the left?", "files": [file]}
        self._post(_PREDICT, json.dumps(body).encode(), cookie=cookie, timeout=30)

    # --- E ---------------------------------------------------------------------------------------

    def _tiny(self) -> None:
        """A tab that nobody has seen before, and never will again."""
        for sent, path in ((self._search, _PREDICT), (self._join, _JOIN)):
            self._post(path, self._event(sent).replace("WORDS", "").encode())

    def _body(self) -> None:
        self._post(_PREDICT, next(self._bodies))

    def _make_bodies(self) -> list[bytes]:
        def about(value: str) -> bytes:
            # The session is somebody's own all the same; a body is checked before it is used.
            return self._event(self._search).replace('"WORDS"', value).encode()

        return [
            about('"' + "x" * 99_000 + '"'),
            b'{"data": ["' + b"x" * 30_000_000 + b'"]}',
            b"[" * 900_000,
            about("[" * 300_000 + "]" * 300_000),
            about("[" + "1," * 500_000 + "1]"),
            about("[" + '{"a":[]},' * 100_000 + "1]"),
            about("[" + '"",' * 330_000 + "1]"),
            about('"' + "\\u4f60" * 99_000 + '"'),
            about("{" + ",".join(f'"{n:x}":0' for n in range(100_000)) + "}"),
        ]

    # --- G ---------------------------------------------------------------------------------------

    def _half(self) -> None:
        """One more request that is never finished; the oldest makes room."""
        while len(self._held) >= _HELD:
            self._held.popleft().close()
        self._held.append(self._connect(_HALVES[self.counts["G_half"] % len(_HALVES)]))

    def _drip(self) -> None:
        """A byte more on each of many slow bodies."""
        self._drips = [made for made in self._drips if _sends(made, b"x")]
        while len(self._drips) < 50:
            head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n"
            self._drips.append(self._connect(head))

    def _unread(self) -> None:
        """A stream, or many answers, that nobody reads."""
        path = f"{GRADIO}/heartbeat/{secrets.token_hex(6)}" if self.counts["G_unread"] % 4 else "/"
        line = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {next(self._cookies)}\r\n\r\n"
        made = self._connect(line.encode() * (20 if path == "/" else 1), unread=True)
        self._held.append(made)

    # --- H ---------------------------------------------------------------------------------------

    def _file(self) -> None:
        kind, form = next(self._files)
        self._post(_UPLOAD, form, kind)

    def _make_files(self) -> list[tuple[str, bytes]]:
        tiny = [(f"{n}.png", picture()) for n in range(30)]
        return [
            _form([("setup.exe", b"MZ" + b"\0" * 30_000_000)]),
            _form(tiny),
            _form(tiny),
            _form([("large.png", picture() + b"\0" * 20_000_000)]),
            _form([("empty.png", b"")]),
            _form([("p.png", picture())]),
        ]

    # --- inside ----------------------------------------------------------------------------------

    def _event(self, body: str) -> str:
        session = json.loads(body)["session_hash"]
        return body.replace(session, secrets.token_hex(6))

    def _post(
        self, path: str, body: bytes, kind: str = "application/json", cookie: str = "",
        timeout: float = 20,
    ) -> bytes:  # fmt: skip
        made = http.client.HTTPConnection(*self._address, timeout=timeout)
        try:
            headers = {"Cookie": cookie or next(self._cookies), "Content-Type": kind}
            made.request("POST", path, body, headers)
            answer = made.getresponse()
            self.counts[f"status {answer.status}"] += 1
            return answer.read()
        finally:
            made.close()

    def _connect(self, sent: bytes, unread: bool = False) -> socket.socket:
        made = socket.socket()
        if unread:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(5)
        made.connect(self._address)
        made.sendall(sent)
        return made


def _sends(made: socket.socket, data: bytes) -> bool:
    try:
        made.sendall(data)
    except OSError:
        made.close()
        return False
    return True


def _form(files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A form of files: its content type and its bytes."""
    head = '--x\r\nContent-Disposition: form-data; name="files"; filename="{}"\r\n\r\n'
    parts = b"".join(head.format(name).encode() + data + b"\r\n" for name, data in files)
    return "multipart/form-data; boundary=x", parts + b"--x--\r\n"


def burn(share: float, seconds: float) -> None:
    """Work for this share of one core."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        until = time.process_time() + 0.01 * share
        while time.process_time() < until:
            pass
        time.sleep(0.01 * (1 - share))


def main() -> int:
    """Attack, or burn; then say what was done and what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("cookies", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", default="AEGH")
    parser.add_argument("--rate", type=float, default=1)
    parser.add_argument("--burn", type=float, default=0)
    given = parser.parse_args()
    hostile = Hostile(given.url, given.cookies.read_text().splitlines()) if not given.burn else None
    print("ready", flush=True)
    used, began = time.process_time(), time.monotonic()
    if hostile is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        burn(given.burn, given.seconds)
    else:
        hostile.run(given.seconds, given.only, given.rate)
    spent, lasted = time.process_time() - used, time.monotonic() - began
    counts: dict[str, Any] = dict(sorted(hostile.counts.items())) if hostile else {}
    print(json.dumps({"share": round(spent / lasted, 3), "counts": counts}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
