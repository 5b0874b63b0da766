"""Hub names: from the local cache without a call; fetched only where named and not there."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

import instructblip
from instructblip.checkpoints import hub
from instructblip.errors import CheckpointError
from tests.tiny import make_checkpoint

NAME = "Salesforce/instructblip-vicuna-7b"
REVISION = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """A model as the hub's client keeps it."""
    home = cache / ("models--" + NAME.replace("/", "--"))
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    return make_checkpoint(home / "snapshots" / REVISION)


@pytest.fixture
def dead_end() -> Iterator[str]:
    """The address of a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_cached_model_loads_offline(snapshot: Path) -> None:
    model = instructblip.load(NAME, device="cpu")
    assert model.properties.generation.repetition_penalty == 1.5


def test_bin_shards_of_the_cache_load(snapshot: Path) -> None:
    import torch
    from safetensors.torch import load_file

    before = instructblip.load(NAME, device="cpu").weights.query_tokens.clone()
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    assert torch.equal(instructblip.load(NAME, device="cpu").weights.query_tokens, before)


def test_offline_and_not_there_is_told(cache: Path) -> None:
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE") as caught:
        instructblip.load(NAME, device="cpu")
    assert "HF_ENDPOINT" in str(caught.value)
    assert "ModelScope" in str(caught.value)
    assert caught.value.code == "checkpoint_absent"


def test_no_network_is_one_sentence(
    cache: Path, dead_end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", dead_end)
    with pytest.raises(CheckpointError, match="could not be fetched") as caught:
        instructblip.load(NAME, device="cpu")
    assert "\n" not in str(caught.value)
    assert "fetching it" in capsys.readouterr().err


def test_a_certificate_error_names_the_bundle(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client wraps what its transport raises."""

    def refuse(*_: object, local_files_only: bool = False, **__: object) -> str:
        cause = OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
        raise OSError("no snapshot could be fetched") from (None if local_files_only else cause)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_snapshot", refuse)
    with pytest.raises(CheckpointError, match=r"SSL_CERT_FILE=CA\.pem"):
        hub.hub_folder(NAME)


def test_a_cut_download_is_fetched_again(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        hub.hub_folder(NAME)


@pytest.mark.parametrize(
    ("model", "is_name"),
    [
        (NAME, True), ("a/b", True), ("models/mine", False), ("./a/b", False), ("/a/b", False),
        ("~/a", False), ("a", False), ("a/b/c", False), ("a/", False), ("../b", False),
    ],
)  # fmt: skip
def test_paths_are_not_taken_for_hub_names(cache: Path, model: str, is_name: bool) -> None:
    Path("models").mkdir()
    assert hub.is_hub_name(model) is is_name


def test_a_mistyped_path_makes_no_call(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_snapshot", lambda *a, **k: pytest.fail("a call"))
    shutil.rmtree(tmp_path / "hub", ignore_errors=True)
    Path("models").mkdir()
    for path in ("models/instructblib", str(tmp_path / "nowhere"), "nowhere"):
        with pytest.raises(CheckpointError, match="no folder"):
            instructblip.load(path, device="cpu")
