"""Uploads between their arrival and the picture they become."""

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from instructblip.errors import Busy, UnknownTurn
from webui.bounds import Client
from webui.uploads import SMALLEST, Uploads, private_folder, remove_folder, safe_name

ME, OTHER = Client("a-1", known=True), Client("a-2", known=True)


def add(uploads: Uploads, client: Client, size: int = 10, name: str = "p.png") -> str:
    path = uploads.new_path(name)
    path.write_bytes(b"x" * size)
    return uploads.take(client, path, size)


def test_a_path_is_its_owners_to_the_letter(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = add(uploads, ME)
    assert uploads.owns("a-1", path)
    assert uploads.read("a-1", path) == b"x" * 10
    folder, name = os.path.split(path)
    for other in (
        f"{folder}/./{name}",
        f"{folder}/../{os.path.basename(folder)}/{name}",
        path + "/",
        "/" + path,
    ):
        assert not uploads.owns("a-1", other)
    for wrong in (path, "/etc/passwd"):
        with pytest.raises(UnknownTurn) as caught:
            uploads.read("a-2", wrong)
        assert caught.value.code == "upload_foreign"


def test_equal_files_are_uploads_of_their_own(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    assert add(uploads, ME) != add(uploads, OTHER)


def test_many_tiny_files_of_one_owner_cost_nobody_else_his(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, owner=4 * SMALLEST, address=8 * SMALLEST, total=20 * SMALLEST)
    mine = add(uploads, ME)
    with pytest.raises(Busy) as caught:
        deque(add(uploads, OTHER) for _ in range(100))
    assert caught.value.code == "busy_uploads"
    assert uploads.owns("a-1", mine)


def test_new_cookies_leave_room_for_those_who_have_answers(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, owner=4 * SMALLEST, address=8 * SMALLEST, total=20 * SMALLEST)
    with pytest.raises(Busy) as caught:
        deque(add(uploads, Client(f"new-{n}")) for n in range(100))
    assert caught.value.code == "busy_uploads_all"
    for n in range(5):
        add(uploads, Client(f"here-{n}", known=True))


def test_used_files_make_room_for_their_owners_next(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, owner=4 * SMALLEST, address=8 * SMALLEST, total=20 * SMALLEST)
    first = add(uploads, ME)
    uploads.used(first, "id")
    for _ in range(4):
        last = add(uploads, ME)
    assert not os.path.exists(first)
    assert os.path.exists(last)


def test_an_upload_goes_with_the_picture_it_became(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    mine, kept = add(uploads, ME), add(uploads, OTHER)
    uploads.used(mine, "id")
    uploads.used(kept, "id")
    uploads.released("a-1", "id")
    assert not os.path.exists(mine)
    assert not uploads.owns("a-1", mine)
    assert os.path.exists(kept)


def test_what_is_old_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(tmp_path)
    used, unused = add(uploads, ME), add(uploads, ME)
    uploads.used(used, "id")
    now = time.monotonic()
    monkeypatch.setattr("webui.uploads.time.monotonic", lambda: now + 601)
    assert uploads.sweep() == 1
    assert not os.path.exists(used)
    monkeypatch.setattr("webui.uploads.time.monotonic", lambda: now + 3601)
    assert uploads.sweep() == 1
    assert not os.path.exists(unused)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("photo.jpg", "photo.jpg"),
        ("图片 1.png", "图片 1.png"),
        ("computer%20vision.png", "computer_20vision.png"),
        ("50%25.png", "50_25.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("a\x00b\n.png", "a_b_.png"),
        ("", "picture"),
        ("..", "picture"),
        ("\udcff.png", "_.png"),
    ],
)
def test_names(given: str, kept: str) -> None:
    assert safe_name(given) == kept


def test_long_names_keep_their_ending() -> None:
    name = safe_name("长" * 300 + ".png")
    assert len(name.encode()) <= 120
    assert name.endswith(".png")


def test_folders_of_dead_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os, sys, time\nfrom webui.uploads import private_folder\n"
        "print(private_folder(), flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    theirs = process.stdout.readline().strip()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    mine = private_folder()
    try:
        assert os.path.isdir(theirs)  # it lives
        process.kill()
        process.wait()
        remove_folder(mine)
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        mine = private_folder()
        assert not os.path.exists(theirs)
    finally:
        process.kill()
        process.stdout.close()
        remove_folder(mine)
    assert not list(tmp_path.iterdir())
