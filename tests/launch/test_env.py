"""``source launch.sh env``: the variables of an Ascend NPU in the user's own shell; ``install``."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from tests.launch.conftest import Tree

NAMES = ("TASK_QUEUE_ENABLE", "PYTORCH_NPU_ALLOC_CONF", "CPU_AFFINITY_CONF")


def sourced(
    tree: Tree, after: str, before: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """What a shell prints that sources the file between two commands."""
    script = f"{before}\nsource {shlex.quote(str(tree.root / 'launch.sh'))} env\n{after}"
    return subprocess.run(
        [str(tree.bin / "bash"), "-c", script], env=tree.environment(more), cwd=tree.home,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_cann_is_sourced_and_the_variables_are_set(tree: Tree) -> None:
    tree.npus()
    folder, nnal = tree.cann("9.0.0"), tree.nnal()
    look = (
        f"echo $?,$SEEN,$ASCEND_HOME_PATH,$ATB_HOME_PATH; export -p | grep -E '{'|'.join(NAMES)}'"
    )
    done = sourced(tree, look)
    assert done.returncode == 0, done.stderr
    status, *variables = done.stdout.splitlines()
    assert status == f"0,CANN 9.0.0,{folder},{nnal}"
    assert sorted(variables) == [
        'declare -x CPU_AFFINITY_CONF="1"',
        'declare -x PYTORCH_NPU_ALLOC_CONF="expandable_segments:True"',
        'declare -x TASK_QUEUE_ENABLE="2"',
    ]  # fmt: skip
    assert f"CANN 9.0.0 in {folder}, NNAL in {nnal}." in done.stderr
    assert "Ascend NPUs: davinci0." in done.stderr


def test_what_the_user_set_stays(tree: Tree) -> None:
    tree.cann()
    own = {"TASK_QUEUE_ENABLE": "0", "ASCEND_HOME_PATH": str(tree.home)}
    done = sourced(
        tree, "echo $TASK_QUEUE_ENABLE ${SEEN-no} $ASCEND_HOME_PATH $CPU_AFFINITY_CONF", **own
    )
    assert done.stdout.split() == ["0", "no", str(tree.home), "1"]


@pytest.mark.parametrize("home", ["", "latest"])
def test_a_cann_that_is_only_named_is_sourced_and_one_in_force_is_left(
    tree: Tree, home: str
) -> None:
    folder = tree.cann("9.0.0", "opt/cann", home=home) / home
    named = {"ASCEND_HOME_PATH": str(folder)}
    assert sourced(tree, "echo $SEEN", **named).stdout == "CANN 9.0.0\n"
    named["LD_LIBRARY_PATH"] = f"/x:{folder}/lib64"
    assert sourced(tree, "echo $SEEN $LD_LIBRARY_PATH", **named).stdout == f"/x:{folder}/lib64\n"


def test_a_path_with_blanks_and_quotes(tree: Tree) -> None:
    folder = tree.cann("9.0.0", "usr/local/Ascend/cann")
    odd = 'it\'s a $HOME "folder"\nof two lines'
    with (folder / "set_env.sh").open("r+") as script:
        text = script.read()
        script.seek(0)
        script.write(f"export ODD={shlex.quote(odd)}\n{text}")
    assert sourced(tree, 'printf %s "$ODD"').stdout == odd


def test_a_machine_without_an_npu_needs_nothing(tree: Tree) -> None:
    done = sourced(tree, f"echo $?; export -p | grep -cE '{'|'.join(NAMES)}'")
    assert done.stdout.split() == ["0", "0"]
    assert done.stderr == "There is no Ascend NPU and no CANN here: nothing needs to be set.\n"


def test_an_npu_without_cann_is_said(tree: Tree) -> None:
    tree.device("/dev/davinci0")
    done = sourced(tree, "echo $?")
    assert done.stdout == "1\n"  # and the user's shell lives
    assert "no CANN was found" in done.stderr


@pytest.mark.parametrize("before", ["", "set -eu", "set -- one two"])
def test_nothing_else_is_left_in_the_users_shell(tree: Tree, before: str) -> None:
    tree.cann()
    look = 'echo "$-|$(declare -F)|$*|${INSTRUCTBLIP_ENV-none}|$PWD"'
    plain = subprocess.run(
        [str(tree.bin / "bash"), "-c", f"{before}\n{look}"], env=tree.environment(), cwd=tree.home,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    done = sourced(tree, look, before)
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout


def test_install_installs_and_starts_nothing(tree: Tree) -> None:
    done = tree.launch("install")
    assert done.returncode == 0, done.stderr
    assert "Installed in " in done.stderr
    assert len(tree.installs()) == 1
    assert tree.calls("-P -m") == []
    assert tree.launch("install").stderr == ""
