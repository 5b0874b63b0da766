"""An Ascend server: which CANN is taken, which torch-npu goes with it, what is said about devices."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from instructblip.ascend import cann_rows, cann_version, row_for, torch_of
from tests.launch.conftest import ROOT, Tree

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PLACES = (
    "usr/local/Ascend/cann", "usr/local/Ascend/cann-9.1.0", "usr/local/Ascend/ascend-toolkit",
    "usr/local/Ascend/nnae", "usr/local/Ascend/nnrt",
)  # fmt: skip


def constraints(tree: Tree) -> list[str]:
    lines = (tree.venv / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("torch")]


def pairs(tree: Tree) -> list[str]:
    lines = (tree.venv / "requirements-npu.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("torch")]


def refused(done: subprocess.CompletedProcess[str], tree: Tree) -> str:
    assert done.returncode == 1
    assert tree.installs() == []
    return " ".join(done.stderr.split())


# --- the table -------------------------------------------------------------------------------------


def test_the_table_is_in_order_and_its_torch_is_new_enough() -> None:
    rows = cann_rows()
    numbers = [tuple(map(int, row.cann.split(".")[:2])) for row in rows]
    assert numbers == sorted(numbers, reverse=True)
    assert rows[-1].cann == "8.3.RC1"
    for row in rows:
        for name in row.torch_npu:
            assert tuple(map(int, torch_of(name).split("."))) >= (2, 7)
        assert row.newest_python in ("3.11", "3.12", "3.13")


def test_the_pair_of_the_requirements_is_the_newest_canns() -> None:
    text = (ROOT / "requirements-npu.txt").read_text("utf-8")
    first = cann_rows()[0]
    assert f"\ntorch-npu=={first.torch_npu[0]} ;" in text
    assert f"\ntorch=={torch_of(first.torch_npu[0])} ;" in text
    assert f"CANN {first.cann};" in text


@pytest.mark.parametrize("row", cann_rows(), ids=lambda row: row.cann)
def test_each_cann_of_the_table_gets_its_pair(tree: Tree, row: object) -> None:
    version, best = row.cann, row.torch_npu[0]  # type: ignore[attr-defined]
    tree.npus()
    folder = tree.cann(version)
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    assert f"For CANN {version}: torch {torch_of(best)} with torch-npu {best}." in done.stderr
    assert "(torch: npu). To download: about 0.5 GB" in done.stderr
    assert constraints(tree) == [f"torch=={torch_of(best)}", f"torch-npu=={best}"]
    assert pairs(tree) == [f"torch=={torch_of(best)} ; x", f"torch-npu=={best} ; x"]
    assert f"-r {tree.venv}/requirements-npu.txt" in tree.installs()[-1]
    assert f"-r {tree.root}/requirements.txt" in (tree.venv / "requirements-npu.txt").read_text()
    assert f"cann={folder} seen=CANN {version} queue=2" in (tree.answers / "ran").read_text()


@pytest.mark.parametrize(
    ("found", "treated"),
    [("8.3.RC2", "8.3.RC1"), ("8.5.1", "8.5.0"), ("8.4.0", "8.3.RC1"), ("10.0.0", "9.1.0")],
)
def test_a_cann_between_the_lines_goes_by_the_older_one(
    tree: Tree, found: str, treated: str
) -> None:
    tree.npus()
    tree.cann(found)
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    row = row_for(found)
    assert row is not None
    assert row.cann == treated
    assert f"torch-npu=={row.torch_npu[0]}" in constraints(tree)
    same = found.split(".")[:2] == treated.split(".")[:2]
    assert (f"it is treated as {treated}" in done.stderr) is not same


@pytest.mark.parametrize("version", ["8.2.RC1", "8.0.0", "7.0.1"])
def test_an_old_cann_is_refused_with_the_upgrade(tree: Tree, version: str) -> None:
    assert row_for(version) is None
    tree.npus()
    tree.cann(version)
    said = refused(tree.launch(), tree)
    assert f"CANN {version} is too old" in said
    assert "needs CANN 8.3.RC1" in said
    assert "Upgrade it to CANN 9.1.0" in said
    assert "--torch cpu" in said
    assert "(torch: cpu)" in tree.launch("--torch", "cpu").stderr


# --- where CANN is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_cann_is_found_and_sourced(tree: Tree, place: str) -> None:
    tree.npus()
    folder = tree.cann("9.0.0", place)
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    assert f"CANN 9.0.0 in {folder}." in done.stderr
    assert "seen=CANN 9.0.0" in (tree.answers / "ran").read_text()


def test_cann_in_the_home_folder_and_under_the_recorded_root(tree: Tree) -> None:
    tree.npus()
    home = tree.cann("8.5.0", "Ascend/ascend-toolkit", root=tree.home, home="latest")
    assert f"CANN 8.5.0 in {home}/latest." in tree.launch().stderr
    recorded = tree.cann("9.0.0", "data/ascend/cann")
    record = tree.machine / "etc/Ascend/ascend_cann_install.info"
    record.parent.mkdir(parents=True)
    record.write_text("UserName=root\nInstall_Path=/data/ascend\n")
    assert f"CANN 9.0.0 in {recorded}." in tree.launch().stderr


def test_no_cann(tree: Tree) -> None:
    tree.npus()
    said = refused(tree.launch(), tree)
    assert "torch for an Ascend NPU needs CANN, and none was found" in said
    assert "Install CANN 9.1.0" in said
    assert "--torch cpu" in said
    assert "(torch: cpu)" in tree.launch("--torch", "cpu").stderr


def test_of_several_the_newest_counts_and_the_link_before_it(tree: Tree) -> None:
    tree.npus()
    for version in ("8.5.0", "10.2.0", "9.0.0"):
        tree.cann(version, f"usr/local/Ascend/cann-{version}")
    tree.cann("8.3.RC1", "usr/local/Ascend/ascend-toolkit")
    assert "CANN 10.2.0 in " in tree.launch().stderr
    (tree.machine / "usr/local/Ascend/cann").symlink_to("cann-8.5.0")
    assert "CANN 8.5.0 in " in tree.launch().stderr


def test_one_that_is_too_old_does_not_hide_a_good_one(tree: Tree) -> None:
    tree.npus()
    tree.cann("8.0.0", "usr/local/Ascend/ascend-toolkit")
    folder = tree.cann("9.0.0", "Ascend/cann", root=tree.home)
    assert f"CANN 9.0.0 in {folder}." in tree.launch().stderr


def test_the_users_own_choice_counts_even_if_it_is_old(tree: Tree) -> None:
    tree.npus()
    tree.cann("9.1.0")
    old = tree.cann("8.0.0", "opt/old")
    said = refused(tree.launch(environment={"ASCEND_HOME_PATH": str(old)}), tree)
    assert "CANN 8.0.0 is too old" in said


def test_a_named_folder_may_be_the_one_that_holds_the_script(tree: Tree) -> None:
    tree.npus()
    folder = tree.cann("8.5.0", "opt/ascend-toolkit", home="latest")
    done = tree.launch(environment={"ASCEND_HOME_PATH": str(folder)})
    assert done.returncode == 0, done.stderr
    assert "For CANN 8.5.0: torch 2.9.0 with torch-npu 2.9.0." in done.stderr


def broken_link(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to("cann-6.0")


def broken_script(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "set_env.sh").write_text("export ASCEND_HOME_PATH=/nowhere\n")


def leaving_script(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "set_env.sh").write_text("exit 1\n")


@pytest.mark.parametrize("broken", [broken_link, broken_script, leaving_script])
def test_a_broken_cann_is_named_and_the_next_is_taken(tree: Tree, broken: object) -> None:
    tree.npus()
    folder = tree.machine / "usr/local/Ascend/cann"
    broken(folder)  # type: ignore[operator]
    said = refused(tree.launch(), tree)
    assert f"{folder}/set_env.sh is broken" in said
    assert "none was found" in said
    good = tree.cann("9.0.0", "usr/local/Ascend/ascend-toolkit")
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    assert f"{folder}/set_env.sh is broken" in done.stderr
    assert f"CANN 9.0.0 in {good}." in done.stderr


def test_a_wrong_ascend_home_path_is_said_and_overcome(tree: Tree) -> None:
    tree.npus()
    tree.cann("9.0.0")
    done = tree.launch(environment={"ASCEND_HOME_PATH": "/nowhere"})
    assert done.returncode == 0, done.stderr
    assert "ASCEND_HOME_PATH=/nowhere: there is no such folder" in done.stderr


def test_a_version_that_cannot_be_read(tree: Tree) -> None:
    tree.npus()
    folder = tree.cann("9.0.0")
    next(folder.rglob("*.info")).unlink()
    assert cann_version(folder) is None
    said = refused(tree.launch(), tree)
    assert f"the version of the CANN in {folder} cannot be read" in said
    done = tree.launch("--cann", "9.0.0")
    assert done.returncode == 0, done.stderr
    assert "torch-npu==2.10.0" in constraints(tree)


@pytest.mark.parametrize("name", ["cann-8.5.0", "8.3.RC1", "cann-9.1.0.beta1"])
def test_the_version_may_stand_in_the_folders_name(tree: Tree, name: str) -> None:
    tree.npus()
    folder = tree.cann("x", f"opt/{name}")
    next(folder.rglob("*.info")).unlink()
    assert cann_version(folder) == name.removeprefix("cann-")
    done = tree.launch(environment={"ASCEND_HOME_PATH": str(folder)})
    assert f"For CANN {name.removeprefix('cann-')}: torch" in done.stderr


def test_the_toolkits_record_counts_before_other_packages(tree: Tree) -> None:
    folder = tree.cann("9.0.0")
    (folder / "x86_64-linux" / "ascend_aaa_install.info").write_text("version=1.0\n")
    assert cann_version(folder) == "9.0.0"
    tree.npus()
    assert "CANN 9.0.0 in" in tree.launch().stderr


def test_nnal_is_sourced_without_asking_python(tree: Tree) -> None:
    tree.npus()
    tree.cann("9.0.0")
    assert "NNAL is not installed" in tree.launch().stderr
    nnal = tree.nnal()
    assert f"NNAL in {nnal}." in tree.launch().stderr
    (nnal / "set_env.sh").write_text("return 1\n")
    assert f"NNAL is broken ({nnal}/set_env.sh)" in tree.launch().stderr


# --- what changes later ----------------------------------------------------------------------------


def test_an_upgrade_of_cann_changes_the_pair_and_nothing_changes_it_back(tree: Tree) -> None:
    tree.npus()
    tree.cann("8.5.0", "usr/local/Ascend/cann-8.5.0")
    assert tree.launch().returncode == 0
    tree.forget()
    assert "Installing" not in tree.launch().stderr
    tree.cann("9.0.0", "usr/local/Ascend/cann-9.0.0")
    done = tree.launch()
    assert "bringing" in done.stderr
    assert "torch-npu==2.10.0" in constraints(tree)
    assert len(tree.installs()) == 1


def test_a_start_without_the_cann_that_was_there(tree: Tree) -> None:
    tree.npus()
    folder = tree.cann("9.0.0")
    assert tree.launch().returncode == 0
    folder.rename(folder.with_name("gone"))
    done = tree.launch()
    assert done.returncode == 1
    assert "needs CANN, and none was found" in done.stderr


# --- which Python ----------------------------------------------------------------------------------


def test_an_older_python_is_taken_where_torch_npu_wants_it(tree: Tree) -> None:
    tree.npus()
    tree.cann("8.3.RC1")
    tree.answer("version-python3", "3.12")
    said = refused(tree.launch(), tree)
    assert "torch-npu 2.8.0, the one for CANN 8.3.RC1, is made for Python 3.11, and" in said
    tree.python("python3.12")
    tree.python("python3.11")
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    assert tree.calls("-m venv")[0].startswith("python3.11 ")


def test_a_named_python_is_not_replaced(tree: Tree) -> None:
    tree.npus()
    tree.cann("8.5.0")
    tree.python("python3.11")
    tree.python("mine")
    tree.answer("version-mine", "3.13")
    said = refused(tree.launch("--python", "mine"), tree)
    assert "is made for Python 3.11 to 3.12, and" in said
    assert "is 3.13" in said


def test_a_python_with_its_own_torch_npu_is_kept(tree: Tree) -> None:
    tree.npus()
    tree.cann("8.5.0")
    tree.answer("torch", "2.9.0")
    tree.answer("torch-npu", "2.9.0")
    done = tree.launch("--python", "python3")
    assert done.returncode == 0, done.stderr
    assert "torch 2.9.0 with torch-npu 2.9.0 of" in done.stderr
    assert "not one of those" not in done.stderr
    assert constraints(tree) == ["torch==2.9.0", "torch-npu==2.9.0"]
    ran = tree.answers / "ran"
    assert "seen=CANN 8.5.0 queue=2" in ran.read_text()
    ran.unlink()
    assert tree.launch().returncode == 0  # and at the next start
    assert "seen=CANN 8.5.0 queue=2" in ran.read_text()


@pytest.mark.parametrize("npu", ["2.1.0.post12", ""])
def test_an_own_torch_that_is_too_old_is_refused(tree: Tree, npu: str) -> None:
    tree.npus()
    tree.cann("9.0.0")
    tree.answer("torch", "2.1.0")
    if npu:
        tree.answer("torch-npu", npu)
    said = refused(tree.launch("--python", "python3"), tree)
    assert "has torch 2.1.0; 2.7 or newer is needed. Upgrade it there" in said
    assert (f"(and torch-npu {npu} with it)" in said) is bool(npu)
    assert "torch-npu==2.10.0" in (tree.launch("--torch", "npu").stderr and constraints(tree))


def test_an_own_torch_npu_that_does_not_fit_is_said(tree: Tree) -> None:
    tree.npus()
    tree.cann("9.0.0")
    tree.answer("torch", "2.9.0")
    tree.answer("torch-npu", "2.9.0.post6")
    done = tree.launch("--python", "python3")
    assert done.returncode == 0, done.stderr
    assert "torch-npu 2.9.0.post6 is not one of those made for CANN 9.0.0" in done.stderr


def test_an_own_torch_npu_without_cann_is_refused(tree: Tree) -> None:
    tree.answer("torch", "2.9.0")
    tree.answer("torch-npu", "2.9.0")
    assert "needs CANN" in refused(tree.launch("--python", "python3"), tree)


def test_an_own_torch_without_torch_npu(tree: Tree) -> None:
    tree.npus()
    tree.cann("9.0.0")
    tree.answer("torch", "2.9.0")
    done = tree.launch("--python", "python3")
    assert done.returncode == 0, done.stderr
    assert "It has no torch-npu, so the NPU stays unused; --torch npu" in done.stderr
    assert "cann= " in (tree.answers / "ran").read_text()
    assert "torch-npu==2.10.0" in (tree.launch("--torch", "npu").stderr and constraints(tree))


# --- devices ---------------------------------------------------------------------------------------


def test_the_devices_are_said(tree: Tree) -> None:
    tree.npus(2)
    tree.cann()
    assert "Ascend NPUs: davinci0 davinci1." in tree.launch().stderr


def test_no_device(tree: Tree) -> None:
    tree.cann()
    done = tree.launch()
    assert "(torch: cpu)" in done.stderr
    assert "CANN is installed, and no NPU shows" in done.stderr
    assert "install the driver and firmware" in done.stderr
    done = tree.launch("install", "--torch", "npu")  # as the build of an image does
    assert done.returncode == 0, done.stderr
    assert "install the driver" in tree.launch().stderr


def test_a_container_without_devices(tree: Tree) -> None:
    tree.cann()
    (tree.machine / ".dockerenv").touch()
    said = tree.launch("--torch", "npu").stderr
    assert "This container lacks /dev/davinci0 /dev/davinci_manager /dev/devmm_svm" in said
    for flag in ("--device=/dev/davinci0", "--device=/dev/hisi_hdc", "-v /usr/local/Ascend/driver"):
        assert flag in said


def test_a_container_with_a_part_of_them(tree: Tree) -> None:
    tree.cann()
    tree.npus()
    (tree.machine / "dev/hisi_hdc").unlink()
    said = tree.launch(environment={"container": "podman"}).stderr
    assert "This container lacks a part of its NPUs: /dev/hisi_hdc." in said
    assert "there is no /dev/hisi_hdc: reinstall the driver" in tree.launch().stderr


def test_an_npu_of_the_manager_alone_is_none(tree: Tree) -> None:
    tree.device("/dev/davinci_manager")
    assert "(torch: cpu)" in tree.launch().stderr


# --- where the packages come from ------------------------------------------------------------------


def test_the_pairs_torch_is_the_build_for_the_cpu(tree: Tree) -> None:
    tree.npus()
    tree.cann("9.0.0")
    tree.answer("reachable")
    tree.launch()
    assert f"--no-deps --index-url {CPU_INDEX} torch==2.10.0" in tree.installs()[0]


@pytest.mark.parametrize(("machine", "said"), [("x86_64", True), ("aarch64", False)])
def test_an_own_index_on_x86_brings_cuda_along(tree: Tree, machine: str, said: bool) -> None:
    (tree.bin / "uname").unlink()
    tree.program("uname", f'[ "$1" != -m ] || {{ echo {machine}; exit; }}; echo Linux')
    tree.npus()
    tree.cann("9.0.0")
    done = tree.launch(environment={"PIP_INDEX_URL": "https://mirror/simple"})
    assert done.returncode == 0, done.stderr
    assert ("may bring CUDA along" in done.stderr) is said
    assert tree.calls("--index-url") == []


def test_a_wheelhouse_for_a_server_with_another_cann(tree: Tree) -> None:
    done = tree.launch("wheelhouse", "house", "--torch", "npu")
    assert done.returncode == 0, done.stderr
    assert "torch-npu is taken for CANN 9.1.0; another one with --cann VERSION" in done.stderr
    done = tree.launch("wheelhouse", "house", "--torch", "npu", "--cann", "8.2.RC1")
    assert "CANN 8.2.RC1 is too old" in done.stderr
    done = tree.launch("wheelhouse", "house", "--torch", "npu", "--cann", "8.5.0")
    assert done.returncode == 0, done.stderr
    assert "requirements-npu.txt" in tree.calls("-m pip download")[-2]  # then the simulation's
