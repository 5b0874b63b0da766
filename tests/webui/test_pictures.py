"""Picture files: named by content, whole or absent, and no name leads out of their folder."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webui.pictures import PictureFolder, is_picture_id, picture_id_of


@pytest.fixture
def folder(tmp_path: Path) -> PictureFolder:
    return PictureFolder(tmp_path / "pictures")


def test_a_picture_is_written_read_and_removed(folder: PictureFolder) -> None:
    made = folder.write(b"one")
    assert made == picture_id_of(b"one")
    assert folder.path(made).read_bytes() == b"one"
    assert folder.write(b"one") == made
    assert list(folder.ids()) == [made]
    folder.remove(made)
    folder.remove(made)
    assert list(folder.ids()) == []


@settings(deadline=None)
@given(st.sets(st.binary(max_size=64), max_size=8))
def test_contents_and_ids_are_one_to_one(
    tmp_path_factory: pytest.TempPathFactory, contents: set[bytes]
) -> None:
    folder = PictureFolder(tmp_path_factory.mktemp("any"))
    ids = {folder.write(data): data for data in contents}
    assert len(ids) == len(contents)
    assert set(folder.ids()) == set(ids)
    assert {made: folder.path(made).read_bytes() for made in ids} == ids


@given(
    st.text(st.characters(exclude_categories=()))
    | st.text("0123456789abcdef", min_size=30, max_size=34)
)
@example("0" * 32)
@example("0" * 32 + "\n")
@example("A" * 32)
@example("../" * 10 + "ab")
@example("٣" * 32)
def test_only_an_id_reaches_the_disk(text: str) -> None:
    folder = PictureFolder(Path(os.devnull).parent)
    good = len(text) == 32 and set(text) <= set("0123456789abcdef")
    assert is_picture_id(text) is good
    if good:
        assert folder.path(text) == folder.folder / text[:2] / text
    else:
        with pytest.raises(ValueError, match="not a picture id"):
            folder.path(text)


@pytest.mark.parametrize("value", [None, 3, b"0" * 32, ["0" * 32]])
def test_what_is_no_text_is_no_id(value: object) -> None:
    assert is_picture_id(value) is False  # type: ignore[arg-type]


def test_a_write_that_fails_leaves_nothing(
    folder: PictureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write(b"one")
    assert [path for path in folder.folder.rglob("*") if path.is_file()] == []


def test_what_a_crash_left_is_made_good(folder: PictureFolder) -> None:
    made = folder.write(b"whole picture")
    folder.path(made).write_bytes(b"half")
    (folder.folder / made[:2] / ".new-abc").write_bytes(b"never finished")
    (folder.folder / made[:2] / "notes.txt").write_bytes(b"not ours")
    assert list(folder.ids()) == [made]
    assert {path.name for path in folder.folder.glob("*/*")} == {made, "notes.txt"}
    assert folder.write(b"whole picture") == made
    assert folder.path(made).read_bytes() == b"whole picture"


def test_the_same_picture_from_many_threads(folder: PictureFolder) -> None:
    data, made = b"x" * 100_000, set()
    threads = [threading.Thread(target=lambda: made.add(folder.write(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {picture_id_of(data)}
    assert [path.name for path in folder.folder.glob("*/*")] == list(made)
