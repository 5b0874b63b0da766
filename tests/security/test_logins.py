"""What strangers can do to logins, over HTTP against a real server: guess, lock out, log out, rebind."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.browser.driver import ROOT, Server, slow_server
from webui.sessions import COOKIE

PASSWORDS = {"ann": "annes own", "guest": "für alle"}


class Browser:
    """A browser with cookies of its own that does what the login page tells it."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.waited = 0.0

    def post(self, name: str, password: str) -> httpx.Response:
        return self.http.post("/login", data={"name": name, "password": password})

    def log_in(self, name: str, password: str, limit: float = 90.0) -> None:
        """Try, wait as long as told, try again."""
        begun = time.monotonic()
        while (answer := self.post(name, password)).status_code in (429, 503):
            assert time.monotonic() - begun < limit, "locked out"
            time.sleep(int(answer.headers["retry-after"]))
        assert answer.status_code == 303, answer.text
        self.waited = time.monotonic() - begun

    def is_in(self) -> bool:
        status = self.http.get("/config").status_code
        assert status in (200, 401)
        return status == 200


@contextmanager
def flood(
    url: str, name: str = "guest", threads: int = 4, seconds: float = 60.0
) -> Iterator[list[int]]:
    """Guesses, each with no cookie, as fast as they are answered; the statuses that came."""
    statuses: list[int] = []
    stop = threading.Event()

    def guess(number: int) -> None:
        end = time.monotonic() + seconds
        with httpx.Client(base_url=url, timeout=60) as http:
            while not stop.is_set() and time.monotonic() < end and len(statuses) < 20_000:
                data = {"name": name, "password": f"guess {number} {len(statuses)}"}
                http.cookies.clear()
                statuses.append(http.post("/login", data=data).status_code)

    running = [threading.Thread(target=guess, args=(n,), daemon=True) for n in range(threads)]
    for each in running:
        each.start()
    try:
        yield statuses
    finally:
        stop.set()
        for each in running:
            each.join(60)


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of hashes, made by the command."""
    path = tmp_path / "logins"
    for name, password in PASSWORDS.items():
        passwd(path, name, given=password + "\n")
    return path


def passwd(*words: object, given: str = "") -> None:
    command = [sys.executable, "-m", "webui.passwd", *map(str, words)]
    subprocess.run(command, cwd=ROOT, input=given.encode(), check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def server(tmp_path: Path, file: Path) -> Iterator[Server]:
    running = slow_server(tmp_path / "data", 0.01, flags=("--auth-file", str(file))).start()
    yield running
    running.kill()


# --- guessing --------------------------------------------------------------------------------------


def test_guesses_without_cookies_are_few_and_lock_nobody_out(server: Server) -> None:
    seen, left = Browser(server.url), Browser(server.url)
    for each in (seen, left):
        each.log_in("guest", PASSWORDS["guest"])
    left.http.post("/logout")
    with flood(server.url) as statuses:
        until(lambda: len(statuses) > 100)
        begun = time.monotonic()
        assert seen.is_in()
        answer = left.post("guest", PASSWORDS["guest"])  # it has logged in before: at once
        assert answer.status_code == 303
        newcomer = Browser(server.url)
        newcomer.log_in("guest", PASSWORDS["guest"])
        took = time.monotonic() - begun
    looked_at = statuses.count(401)
    assert set(statuses) <= {401, 429, 503}
    assert looked_at <= 10 + 0.2 * (took + 60) + 1
    assert newcomer.is_in()
    log = server.log()
    assert "login failed: 'guest' from an address that is not known" in log
    assert "login slowed: 'guest'" in log
    assert "guess " not in log
    assert PASSWORDS["guest"] not in log
    assert len(log.encode()) < 20_000


def test_of_twenty_behind_one_tunnel_one_guesses(server: Server) -> None:
    others = [Browser(server.url) for _ in range(19)]
    with flood(server.url, threads=1) as statuses:
        until(lambda: len(statuses) > 20)
        with ThreadPoolExecutor(len(others)) as pool:
            list(pool.map(lambda each: each.log_in("guest", PASSWORDS["guest"]), others))
    assert all(each.is_in() for each in others)
    owners = {each.http.cookies[COOKIE] for each in others}
    assert len(owners) == 19


def test_a_made_up_name_is_answered_like_a_real_one(server: Server) -> None:
    answers: dict[str, list[tuple[int, int]]] = {}
    for name in ("ann", "nobody"):
        browser = Browser(server.url)
        for _ in range(14):
            answer = browser.post(name, "wrong")
            page = answer.text.replace(name, "NAME")
            answers.setdefault(name, []).append((answer.status_code, len(page)))
    assert answers["ann"] == answers["nobody"]
    assert answers["ann"][0][0] == 401
    assert answers["ann"][-1][0] == 429


def test_names_of_any_kind_end_in_one_escaped_line(server: Server) -> None:
    bodies = (
        "name=a%0Ab%1B%5B2J&password=x", "name=%00&password=x", "name=%FF%FE&password=%FF",
        "name=" + "x" * 5000 + "&password=x", "name=&password=", "password=x", "", "=&=&" * 50,
        "name=x&password=" + "y" * 100_000,
    )  # fmt: skip
    with httpx.Client(base_url=server.url, timeout=60) as http:
        kinds = ("application/x-www-form-urlencoded; charset=nonsense", "multipart/form-data", "")
        for body in bodies:
            for kind in kinds:
                answer = http.post("/login", content=body.encode(), headers={"content-type": kind})
                assert answer.status_code in (400, 401, 413, 429, 503), (body[:30], kind)
    log = server.log()
    assert r"'a\nb\x1b[2J'" in log
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert max(map(len, log.splitlines())) < 1000


def test_a_full_line_of_passwords_says_so(tmp_path: Path) -> None:
    server = slow_server(tmp_path / "data", 0.01, flags=("--auth", "ann:secret,bob:words")).start()
    try:
        browsers = [Browser(server.url) for _ in range(40)]
        for each in browsers:  # connected, so that they come at once
            each.http.get("/login")
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda b: b.post("ann", "secret"), browsers))
    finally:
        server.kill()
    by_status = {a.status_code for a in answers}
    assert 303 in by_status
    assert by_status <= {303, 429, 503}
    assert by_status & {429, 503}
    for answer in answers:
        if answer.status_code != 303:
            assert int(answer.headers["retry-after"]) >= 1
            assert 'role="alert"' in answer.text


# --- sessions --------------------------------------------------------------------------------------


def test_only_our_own_page_logs_out_and_the_old_cookie_is_worth_nothing(
    server: Server, tmp_path: Path
) -> None:
    ann = Browser(server.url)
    ann.log_in("ann", PASSWORDS["ann"])
    cookie = {"cookie": f"{COOKIE}={ann.http.cookies[COOKIE]}"}
    page = ann.http.get("/logout", headers={"referer": "https://evil.example/"})
    assert page.status_code == 200
    assert 'method="post"' in page.text
    for other in ({"origin": "https://evil.example"}, {"origin": "null"}):
        assert ann.http.post("/logout", headers=other).status_code == 403
    assert ann.is_in()
    assert ann.http.post("/logout").status_code == 303
    assert not ann.is_in()
    assert httpx.get(server.url + "config", headers=cookie).status_code == 401
    server.kill()
    server.start()
    assert httpx.get(server.url + "config", headers=cookie).status_code == 401


def test_a_session_outlives_the_server_and_ends_with_its_password(
    server: Server, file: Path
) -> None:
    ann, guest = Browser(server.url), Browser(server.url)
    ann.log_in("ann", PASSWORDS["ann"])
    guest.log_in("guest", PASSWORDS["guest"])
    server.kill()
    server.start()
    assert ann.is_in()
    assert guest.is_in()
    passwd(file, "guest", given="another\n")
    assert not guest.is_in()
    assert ann.is_in()
    passwd(file, "ann", "--remove")
    assert not ann.is_in()
    guest.log_in("guest", "another")
    assert Browser(server.url).post("ann", PASSWORDS["ann"]).status_code == 401


def test_no_password_is_in_ps_or_the_log(server: Server, tmp_path: Path) -> None:
    Browser(server.url).log_in("ann", PASSWORDS["ann"])
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path / "logins") in listed
    assert not [p for p in PASSWORDS.values() if p in listed or p in server.log()]
    assert "WARNING" not in server.log()


def test_a_password_in_a_flag_is_warned_of(tmp_path: Path) -> None:
    server = slow_server(tmp_path / "data", 0.01, flags=("--auth", "ann:secret")).start()
    try:
        log = server.log()
        assert re.search(r"WARNING: .*--auth \(ps\)", log)
        assert "--auth-file FILE" in log
        assert "INSTRUCTBLIP_AUTH" in log
        assert "secret" not in log
        assert httpx.get(server.url + "config").status_code == 401
        Browser(server.url).log_in("ann", "secret")
    finally:
        server.kill()


def test_a_login_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTBLIP_AUTH", "ann:secret")
    server = slow_server(tmp_path / "data", 0.01).start()
    try:
        assert "WARNING" not in server.log()
        browser = Browser(server.url)
        assert not browser.is_in()
        browser.log_in("ann", "secret")
        assert browser.is_in()
    finally:
        server.kill()


# --- names -----------------------------------------------------------------------------------------


def test_a_rebound_name_changes_nothing(tmp_path: Path) -> None:
    flags = ("--host", "0.0.0.0", "--origins", "http://chat.example:8080")
    server = slow_server(tmp_path / "data", 0.01, flags=flags).start()
    evil = "rebound.example:7860"
    try:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            http.get("/").raise_for_status()
            for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/predict"):
                for origin in ({}, {"origin": f"http://{evil}"}):
                    headers = {"host": evil, **origin}
                    assert http.post(path, json={}, headers=headers).status_code == 403
            page = http.get("/", headers={"host": evil, "accept": "text/html"})
            assert page.status_code == 403
            assert "--origins http://rebound.example:7860" in page.text
            for host in (f"127.0.0.1:{server.port}", "192.0.2.7:1", "chat.example:8080",
                         "[2001:db8::7]:1", f"{socket.gethostname()}:1"):  # fmt: skip
                answer = http.post("/gradio_api/queue/join", json={}, headers={"host": host})
                assert answer.status_code != 403, host
                assert http.get("/", headers={"host": host}).status_code == 200
        assert "403" in opened(server.port, evil)
    finally:
        server.kill()


def opened(port: int, host: str) -> str:
    """What comes to a WebSocket for a tab's heartbeat that is asked for under this name."""
    lines = (
        "GET /streams?to=/gradio_api/heartbeat/abcdefgh HTTP/1.1", f"Host: {host}",
        f"Origin: http://{host}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", "", "",
    )  # fmt: skip
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as asked:
        asked.sendall("\r\n".join(lines).encode())
        while b"403" not in found and (chunk := asked.recv(1000)):
            found += chunk
    return found.decode("latin-1")


@pytest.mark.parametrize("planted", ["x", "s1.00", "a1.ff.1.0"])
def test_a_planted_cookie_neither_locks_out_nor_outlives_the_logout(
    server: Server, planted: str
) -> None:
    """Another program under the same host name can set a cookie, in front or behind."""
    ann = Browser(server.url)
    ann.log_in("ann", PASSWORDS["ann"])
    own = ann.http.cookies[COOKIE]
    both = (f"{COOKIE}={planted}; {COOKIE}={own}", f"{COOKIE}={own}; {COOKIE}={planted}")
    for sent in both:
        answer = httpx.get(server.url + "config", headers={"cookie": sent})
        assert answer.status_code == 200
    httpx.post(server.url + "logout", headers={"cookie": both[len(planted) % 2]})
    assert not ann.is_in()
