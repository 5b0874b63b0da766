"""H: files are looked at as they come, bounded, and gone with their use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.browser.driver import slow_server
from tests.security.strangers import GRADIO, Stranger
from tests.tiny_picture import picture
from webui.sessions import COOKIE, Signer, load_key

Make = Callable[[], Stranger]


def test_a_program_is_refused_at_its_first_bytes(stranger: Make) -> None:
    visitor = stranger()
    answer = visitor.upload(b"MZ" + b"\0" * 30_000_000, "setup.png")
    assert answer.status_code == 415
    assert "setup.png" in answer.text
    assert visitor.upload(b"", "a.png").status_code == 400
    assert visitor.upload(b"\x89PNG", "a.png").status_code == 415
    assert visitor.upload(picture() + b"\0" * 32 * 2**20).status_code == 413
    assert visitor.upload(picture() + b"\0" * 40 * 2**20).status_code == 413


def test_a_form_without_a_length_is_refused(stranger: Make) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    sent = (b"x" for _ in range(3))
    assert stranger().http.post(f"{GRADIO}/upload", content=sent, headers=kind).status_code == 400


def test_many_tiny_files_of_one_are_his_own_problem(stranger: Make) -> None:
    victim, hostile = stranger(), stranger()
    path = victim.uploaded()
    files = [("files", (f"{n}.png", picture(), "image/png")) for n in range(30)]
    codes = [hostile.http.post(f"{GRADIO}/upload", files=files).status_code for _ in range(45)]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert victim.file(path).status_code == 200
    assert victim.upload().status_code == 200


def test_a_form_that_is_refused_halfway_holds_nothing(stranger: Make) -> None:
    visitor = stranger()

    def send(count: int) -> int:
        files = [("files", (f"{n}.png", picture(), "image/png")) for n in range(count)]
        return visitor.http.post(f"{GRADIO}/upload", files=files).status_code

    assert {send(30) for _ in range(34)} == {200}  # there is room for four more
    assert send(32) == 429
    assert send(4) == 200


def test_new_cookies_do_not_keep_others_out(tmp_path: Path) -> None:
    """Strangers fill the newcomers' share; who has answers here goes on."""
    server = slow_server(tmp_path / "data", delay=0.01).start()
    here = Stranger(server.url)
    assert here.ask("hello").status_code == 200
    follow = next(d for d in here.config["dependencies"] if d["api_name"] == "attach")
    body = {"data": [None], "fn_index": follow["id"], "session_hash": here.session}
    here.http.post(f"{GRADIO}/queue/join", json=body).raise_for_status()
    here.http.get(f"{GRADIO}/queue/data", params={"session_hash": here.session})
    signer = Signer(load_key(tmp_path / "data"))
    codes = []
    with httpx.Client(base_url=server.url, timeout=60) as http:
        while 429 not in codes:
            cookie = {"cookie": f"{COOKIE}={signer.cookie(signer.new_visitor())}"}
            files = [("files", (f"{n}.png", picture(), "image/png")) for n in range(32)]
            codes.append(http.post(f"{GRADIO}/upload", files=files, headers=cookie).status_code)
            assert len(codes) < 400
    for _ in range(5):
        assert here.upload().status_code == 200
    server.kill()


def test_an_upload_goes_with_its_chat(stranger: Make) -> None:
    visitor = stranger()
    visitor.event(None, "load").raise_for_status()
    path = visitor.uploaded(picture((1, 2, 3)))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    visitor.event("box", "submit", {"text": "hello", "files": [file]}).raise_for_status()
    assert visitor.file(path).status_code == 200
    listed = visitor.event("search", "change", "").json()["data"][0]
    chat = listed.split('data-id="')[1].split('"')[0]
    body = visitor.body("chats", "click")
    sent = {**body, "event_data": {"act": "delete", "id": chat}}
    assert visitor.http.post(f"{GRADIO}/run/predict", json=sent).status_code == 200
    assert visitor.file(path).status_code == 404
    assert not os.path.exists(path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_server_that_is_gone(tmp_path: Path, how: int) -> None:
    above = tmp_path / "tmp"
    environment = {
        "GRADIO_TEMP_DIR": str(above),
        **{k: v for k, v in os.environ.items() if k != "GRADIO_TEMP_DIR"},
    }
    server = slow_server(tmp_path / "data")
    server._environment = {**server._environment, **environment}
    server.start()
    path = Stranger(server.url).uploaded()
    assert path.startswith(str(above))
    server.kill(how)
    assert os.path.exists(path) is (how == signal.SIGKILL)
    server.start()
    try:
        assert not os.path.exists(path)
        assert len(list(above.iterdir())) == 1
    finally:
        server.kill()
