"""What launch.sh understands, what it passes on, and what it says to the rest."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.launch.conftest import ROOT, Tree

COMMANDS = ("infer", "chat", "eval", "bench", "convert", "vicuna", "doctor")


def test_help_names_the_commands_and_installs_nothing(tree: Tree) -> None:
    done = tree.launch("--help")
    assert done.returncode == 0
    for word in (
        "infer",
        "chat",
        "test",
        "wheelhouse",
        "--python",
        "--torch",
        "--share",
        "--auth",
        "passwd FILE",
    ):
        assert word in done.stdout
    assert done.stderr == ""
    assert tree.calls() == []
    assert not tree.venv.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sevre",), "no command is called 'sevre'; see bash launch.sh --help"),
        (("--torch", "rocm"), "--torch rocm: choose cpu, cuda, npu or keep"),
        (("--torch=rocm",), "--torch rocm: choose"),
        (("--python",), "--python needs a value"),
        (("--venv=",), "--venv needs a value"),
        (("wheelhouse",), "wheelhouse needs the folder to fill"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    tree: Tree, arguments: tuple[str, ...], words: str
) -> None:
    done = tree.launch(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("launch.sh: ")
    assert words in done.stderr
    assert tree.calls() == []


def test_the_page_starts_with_what_launch_does_not_know(tree: Tree) -> None:
    done = tree.launch("--port", "8000", "--nonsense", "two words", "--torch", "cpu")
    assert done.returncode == 0, done.stderr
    assert "<-P><-m><webui><--port><8000><--nonsense><two words>\n" in done.stdout


def test_the_page_names_the_flag_that_nobody_knows() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "webui", "--nonsense"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "unrecognized arguments: --nonsense" in done.stderr


def test_a_word_is_no_command_behind_a_flag(tree: Tree) -> None:
    done = tree.launch("--model", "chat")
    assert "<webui><--model><chat>\n" in done.stdout


def test_page_help_is_the_pages(tree: Tree) -> None:
    assert "<webui><--help>\n" in tree.launch("--page-help").stdout


def test_what_follows_two_dashes_is_passed_on_untouched(tree: Tree) -> None:
    assert "<webui><--torch><x><-h>\n" in tree.launch("--", "--torch", "x", "-h").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_gets_its_arguments(tree: Tree, command: str) -> None:
    done = tree.launch(command, "--img_path", "a b.png", "--prompt", "What's *?", "--help", "")
    assert done.returncode == 0, done.stderr
    passed = "<--img_path><a b.png><--prompt><What's *?><--help><>\n"
    assert f"<-P><-m><instructblip><{command}>{passed}" in done.stdout


def test_a_login_is_made_by_a_module_of_the_page(tree: Tree) -> None:
    done = tree.launch("passwd", "my logins", "ann", "--remove")
    assert done.returncode == 0, done.stderr
    assert "<-P><-m><webui.passwd><my logins><ann><--remove>\n" in done.stdout
    assert "<webui.passwd><--help>\n" in tree.launch("passwd", "--help").stdout


def test_options_of_the_installation_may_stand_anywhere(tree: Tree) -> None:
    done = tree.launch("infer", "--prompt", "x", "--torch=cuda", "--venv", "elsewhere")
    assert "<instructblip><infer><--prompt><x>\n" in done.stdout
    assert "torch: cuda" in done.stderr
    assert (tree.home / "elsewhere" / ".stamp").exists()  # as seen from the caller's folder


def test_the_callers_folder_and_no_network_for_the_page(tree: Tree) -> None:
    done = tree.launch()
    assert f"offline=1 strict= folder={tree.home}" in done.stdout
    online = tree.launch(environment={"HF_HUB_OFFLINE": "0"})
    assert "offline=0" in online.stdout


def test_the_folder_of_packages_by_variable(tree: Tree) -> None:
    tree.launch(environment={"INSTRUCTBLIP_VENV": str(tree.home / "packages")})
    assert (tree.home / "packages" / ".stamp").exists()
    assert not tree.venv.exists()


def test_a_tree_with_spaces_in_its_name(tree: Tree) -> None:
    moved = tree.root.rename(tree.root.parent / "a tree; with 'words'")
    tree.root = moved
    done = tree.launch("infer", "--prompt", "x")
    assert done.returncode == 0, done.stderr
    assert (moved / ".venv" / ".stamp").exists()


def test_tests_run_in_the_tree_strict_on_demand(tree: Tree) -> None:
    done = tree.launch("test", "--strict")
    assert done.returncode == 0, done.stderr
    assert f"strict=1 folder={tree.root}" in (tree.answers / "ran").read_text()
    assert any("requirements-dev.txt" in call for call in tree.installs())
    for check in ("ruff check", "ruff format --check", "mypy"):
        assert f"== {check}" in done.stderr
    tree.forget()
    narrowed = tree.launch("test", "tests/x.py", "-k", "some words")
    assert "<-m><pytest><tests/x.py><-k><some words>\n" in narrowed.stdout
    assert "strict=0" in narrowed.stdout
    assert "== mypy" not in narrowed.stderr  # a few tests: no linting
    assert tree.installs() == []


def test_what_the_machine_lacks_for_the_tests_is_said(tree: Tree) -> None:
    done = tree.launch("test")
    assert "chromium fonts-noto-cjk shellcheck g++" in done.stderr
    assert "Without chromium the browser tests are skipped (an error with --strict)" in done.stderr
    assert "Without g++ the tests on a simulated NPU are skipped (an error" in done.stderr


def test_packages_of_some_tests_lie_apart_from_torch(tree: Tree) -> None:
    assert tree.launch("test").returncode == 0
    for home, name, module in (
        ("npu-simulation", "torch-npu-2.13.0", "torch_npu"),
        ("triton-interpreter", "triton-3.6.0", "triton"),
    ):
        folder = tree.root / ".venv" / home
        assert [entry.name for entry in folder.iterdir()] == [name]
        assert (folder / name / module).is_dir()
    tree.forget()
    assert tree.launch("test").returncode == 0
    assert tree.installs() == []  # once is enough


def test_without_torch_npu_the_other_tests_run(tree: Tree) -> None:
    assert tree.launch("install").returncode == 0
    assert tree.launch("test", "x.py").returncode == 0
    home = tree.root / ".venv" / "npu-simulation"
    for entry in home.iterdir():
        entry.rename(tree.root / "away")
    (tree.answers / "pip-fails").write_text("no network")
    done = tree.launch("test", "x.py")
    assert done.returncode == 0, done.stderr
    assert "Without torch-npu the tests on a simulated NPU are skipped" in done.stderr
    assert "Without triton" not in done.stderr  # it is there
    assert list(home.iterdir()) == []


def test_the_script_is_sound() -> None:
    scripts = ("launch.sh", "instructblip/cann.sh", ".ci/run", "tests/launch/fake_python.sh")
    checker = ["shellcheck"] if shutil.which("shellcheck") else ["bash", "-n"]
    # Together, since shellcheck follows launch.sh into what it sources.
    runs = (
        [[*checker, *scripts]] if checker[0] == "shellcheck" else [[*checker, s] for s in scripts]
    )
    for command in runs:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_sourcing_it_does_nothing(tree: Tree) -> None:
    done = subprocess.run(
        ["bash", "-c", f"source {ROOT}/launch.sh && type main"],
        cwd=tree.home, capture_output=True, text=True, timeout=120, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("main is a function")
