"""The folder that users of LAVIS have: each part found, or asked about, never guessed."""

import shutil
from pathlib import Path

import pytest

import instructblip
from instructblip.checkpoints.layout import find_lavis
from instructblip.checkpoints.source import open_source
from instructblip.errors import CheckpointError
from tests.instructblip.checkpoints.conftest import refused


@pytest.fixture
def users_tree(lavis: Path) -> Path:
    """All that the port's steps leave behind: base, delta, merged model, caches."""
    (lavis / "vicuna").rename(lavis / "vicuna-7b")
    (lavis / "bert").rename(lavis / "bert-base-uncased")
    (lavis / "instruct_blip_trimmed.pth").rename(lavis / "instruct_blip_vicuna7b_trimmed.pth")
    for name in ("llama-7b", "vicuna-7b-delta-v1.1"):
        shutil.copytree(lavis / "vicuna-7b", lavis / name)
    cache = lavis.parent / "cache" / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    shutil.move(lavis / "eva_vit_g.pth", cache)
    (lavis / "vicuna-7b.tar.gz").touch()
    (lavis / "bert-base-uncased.zip").touch()
    (lavis / "infer.py").touch()
    return lavis


def test_the_users_tree_is_found(users_tree: Path) -> None:
    files = find_lavis(users_tree)
    assert files.vicuna == users_tree / "vicuna-7b"
    assert files.bert == users_tree / "bert-base-uncased"
    assert files.blip == users_tree / "instruct_blip_vicuna7b_trimmed.pth"
    assert files.eva == users_tree.parent / "cache/torch/hub/checkpoints/eva_vit_g.pth"
    assert instructblip.load(users_tree, device="cpu").properties.name == "instruct_blip_vicuna7b"


def test_the_trimmed_file_itself_can_be_named(users_tree: Path) -> None:
    assert open_source(users_tree / "instruct_blip_vicuna7b_trimmed.pth").layout == "LAVIS"


def test_torch_home_and_laviss_cache_are_searched(
    users_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eva = users_tree.parent / "cache/torch/hub/checkpoints/eva_vit_g.pth"
    elsewhere = users_tree.parent / "home"
    (elsewhere / "hub" / "checkpoints").mkdir(parents=True)
    moved = eva.rename(elsewhere / "hub" / "checkpoints" / eva.name)
    monkeypatch.setenv("TORCH_HOME", str(elsewhere))
    assert find_lavis(users_tree).eva == moved
    (users_tree.parent / "cache" / "lavis").mkdir()
    moved = moved.rename(users_tree.parent / "cache" / "lavis" / eva.name)
    assert find_lavis(users_tree).eva == moved


def test_an_absent_vit_is_explained(users_tree: Path) -> None:
    shutil.rmtree(users_tree.parent / "cache")
    said = refused(users_tree)
    assert "eva_vit_g.pth" in said
    assert "LAVIS fetched" in said
    assert "hub/checkpoints" in said
    assert "--eva" in said


@pytest.mark.parametrize(
    ("name", "copy", "flag"),
    [
        ("vicuna-7b", "vicuna-13b", "vicuna"),
        ("bert-base-uncased", "bert-large", "bert"),
        ("instruct_blip_vicuna7b_trimmed.pth", "instruct_blip_vicuna13b_trimmed.pth", "instruct_blip"),
    ],
)  # fmt: skip
def test_two_candidates_are_named_not_guessed(
    users_tree: Path, name: str, copy: str, flag: str
) -> None:
    shutil.copytree(users_tree / name, users_tree / copy) if "." not in name else shutil.copy(
        users_tree / name, users_tree / copy
    )
    said = refused(users_tree)
    assert name in said
    assert copy in said
    assert f"--{flag.replace('_', '-')}" in said
    instructblip.load(users_tree, device="cpu", **{flag: users_tree / name})


def test_a_link_beside_its_target_is_one_candidate(users_tree: Path) -> None:
    (users_tree / "vicuna-7b").rename(users_tree / "vicuna-7b-v1.1")
    (users_tree / "vicuna-7b").symlink_to("vicuna-7b-v1.1")
    assert find_lavis(users_tree).vicuna.resolve() == users_tree / "vicuna-7b-v1.1"


def test_delta_and_base_alone_are_told_to_be_merged(users_tree: Path) -> None:
    shutil.rmtree(users_tree / "vicuna-7b")
    said = refused(users_tree)
    assert "python -m instructblip vicuna" in said
    assert f"--base-model-path {users_tree / 'llama-7b'}" in said
    assert f"--delta-path {users_tree / 'vicuna-7b-delta-v1.1'}" in said


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("vicuna-7b", "--vicuna"),
        ("bert-base-uncased", "--bert"),
        ("instruct_blip_vicuna7b_trimmed.pth", "--instruct-blip"),
    ],
)
def test_an_absent_part_is_named(users_tree: Path, name: str, flag: str) -> None:
    for path in (users_tree / name, users_tree / "vicuna-7b-delta-v1.1"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert flag in refused(users_tree)


def test_parts_that_lie_elsewhere(users_tree: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    parts = {"vicuna": "vicuna-7b", "bert": "bert-base-uncased",
             "instruct_blip": "instruct_blip_vicuna7b_trimmed.pth"}  # fmt: skip
    places = {flag: (users_tree / name).rename(away / flag) for flag, name in parts.items()}
    shutil.rmtree(users_tree / "vicuna-7b-delta-v1.1")
    instructblip.load(users_tree, device="cpu", **places)
    for flag, place in places.items():
        assert "Check the path" in refused(users_tree, **(places | {flag: place / "not"}))


def test_folders_without_a_model_say_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder") as caught:
        instructblip.load(tmp_path / "nowhere", device="cpu")
    assert caught.value.code == "checkpoint_absent"
    assert "transformers' layout" in refused(tmp_path)


def test_a_language_model_by_itself_is_named(users_tree: Path) -> None:
    assert "language model by itself" in refused(users_tree / "vicuna-7b")
