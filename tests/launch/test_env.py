"""``source launch.sh env``: the variables of an Ascend NPU in the user's own shell; ``install``."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from instructblip.ascend import RECOMMENDED
from tests.launch.conftest import Tree

NAMES = tuple(RECOMMENDED)


def sourced(
    tree: Tree, after: str, before: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """What a shell prints that sources the file between two commands."""
    script = f"{before}\nsource {shlex.quote(str(tree.root / 'launch.sh'))} env\n{after}"
    return subprocess.run(
        [str(tree.bin / "bash"), "-c", script], env=tree.environment(more), cwd=tree.home,
        capture_output=True, text=True, timeout=120,
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
    assert sorted(variables) == sorted(f'declare -x {n}="{v}"' for n, v in RECOMMENDED.items())
    assert f"CANN 9.0.0 in {folder}, NNAL in {nnal}." in done.stderr
    assert "Ascend NPUs: davinci0." in done.stderr


def test_what_the_user_set_stays(tree: Tree) -> None:
    tree.cann()
    own = {"TASK_QUEUE_ENABLE": "0", "ASCEND_HOME_PATH": str(tree.home)}
    done = sourced(
        tree, "echo $TASK_QUEUE_ENABLE ${SEEN-no} $ASCEND_HOME_PATH $CPU_AFFINITY_CONF", **own
    )
    assert done.stdout.split() == ["0", "no", str(tree.home), "1"]


@pytest.mark.parametrize("own", ["", "0"])
def test_a_script_of_ascend_does_not_change_what_the_user_set(tree: Tree, own: str) -> None:
    for folder in (tree.cann(), tree.nnal()):
        script = folder / "set_env.sh"
        script.write_text(f"export TASK_QUEUE_ENABLE=1\n{script.read_text()}")
    done = sourced(
        tree, "echo $TASK_QUEUE_ENABLE $SEEN", **({"TASK_QUEUE_ENABLE": own} if own else {})
    )
    assert done.stdout == f"{own or 2} CANN 9.1.0\n"


@pytest.mark.parametrize("record", ["", "/opt/ascend"])
def test_the_drivers_libraries_are_added_once_and_last(tree: Tree, record: str) -> None:
    folder = tree.cann("9.0.0")
    driver = tree.machine / (record or "/usr/local/Ascend").lstrip("/") / "driver/lib64"
    for part in ("common", "driver"):
        (driver / part).mkdir(parents=True)
    if record:
        file = tree.machine / "etc/ascend_install.info"
        file.parent.mkdir()
        file.write_text(f"UserName=x\nDriver_Install_Path_Param={record}\n")
    look = "echo $LD_LIBRARY_PATH"
    first = f"{folder}/lib64::{driver}:{driver}/common:{driver}/driver"
    assert sourced(tree, look).stdout == f"{first}\n"
    again = {"LD_LIBRARY_PATH": first, "ASCEND_HOME_PATH": str(folder)}
    assert sourced(tree, look, **again).stdout == f"{first}\n"


def test_a_named_folder_without_its_script_is_said(tree: Tree) -> None:
    done = sourced(tree, "echo $?", ASCEND_HOME_PATH=str(tree.home))
    assert done.stdout == "0\n"
    assert f"{tree.home} has no set_env.sh" in done.stderr


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
        capture_output=True, text=True, timeout=120,
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
