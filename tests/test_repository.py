"""Rules of the repository: arrows, file lengths, what it may not speak of."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import importlib
for name in {modules!r}:
    importlib.import_module(name)
assert {blocked!r} not in sys.modules
"""
TORCH_FREE = (
    "instructblip", "instructblip.errors", "instructblip.images", "instructblip.conversation",
    "instructblip.properties", "instructblip.scenes", "instructblip.engine",
    "instructblip.quick", "instructblip.rows", "instructblip.batch", "instructblip.ascend",
    "instructblip.diagnosis",
)  # fmt: skip


def modules_of(package: str) -> tuple[str, ...]:
    files = (ROOT / package).rglob("*.py")
    names = (".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files)
    return tuple(sorted(n.removesuffix(".__init__") for n in names if not n.endswith("__main__")))


def blocked_import(blocked: str, modules: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = BLOCK.format(blocked=blocked, modules=modules)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_the_page_imports_no_torch() -> None:
    done = blocked_import("torch", (*modules_of("webui"), "webui.__main__"))
    assert done.returncode == 0, done.stderr


def test_what_both_share_imports_no_torch() -> None:
    done = blocked_import("torch", TORCH_FREE)
    assert done.returncode == 0, done.stderr


def test_the_server_listens_before_gradio_is_imported() -> None:
    done = blocked_import("gradio", ("webui.__main__",))
    assert done.returncode == 0, done.stderr


def test_the_core_imports_no_gradio() -> None:
    # Two that import what a machine may lack: icons' renderer, CUDA's compiler.
    absent = ("training.atlas", "kernels_triton")
    modules = tuple(m for m in modules_of("instructblip") if not m.endswith(absent))
    done = blocked_import("gradio", modules)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["instructblip", "webui"])
def test_no_file_is_longer_than_a_room(package: str) -> None:
    long = [
        f"{f.relative_to(ROOT)}: {n}" for f in (ROOT / package).rglob("*.py")
        if (n := len(f.read_text("utf-8").splitlines())) > 400
    ]  # fmt: skip
    assert not long


def test_the_embedded_model_and_the_atlas_are_small() -> None:
    for folder, megabytes in (("embedded", 25), ("atlas", 4)):
        files = (ROOT / "assets" / folder).rglob("*")
        assert sum(f.stat().st_size for f in files if f.is_file()) < megabytes * 2**20
