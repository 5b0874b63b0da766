"""What launch.sh does to the folder of packages: once, whole, mended, and with a word when it fails."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.conftest import Tree


def test_nothing_is_installed_twice(tree: Tree) -> None:
    first = tree.launch()
    assert first.returncode == 0, first.stderr
    assert "Installed in " in first.stderr
    stamp = (tree.venv / ".stamp").read_text()
    tree.forget()
    second = tree.launch()
    assert second.returncode == 0
    assert second.stderr == ""
    assert (tree.venv / ".stamp").read_text() == stamp
    # One look at the version, then the page: nothing else costs time.
    version, page = tree.calls()
    assert "version_info" in version
    assert "-m webui" in page


def test_other_requirements_bring_the_packages_up_to_date(tree: Tree) -> None:
    tree.launch()
    tree.forget()
    (tree.root / "requirements.txt").write_text("torch>=3\n")
    done = tree.launch()
    assert "The requirements have changed; bringing" in done.stderr
    assert len(tree.installs()) == 1
    assert tree.calls("-m venv") == []
    tree.forget()
    tree.launch()
    assert tree.installs() == []


def test_the_test_tools_come_on_top_and_stay(tree: Tree) -> None:
    tree.launch()
    tree.forget()
    tree.launch("test")
    assert tree.calls("-m venv") == []
    assert "requirements-dev.txt" in tree.installs()[0]
    tree.forget()
    tree.launch()
    tree.launch("test")
    assert tree.installs() == []
    (tree.root / "requirements-dev.txt").write_text("pytest>=9\n")
    tree.launch()
    assert tree.installs() == []  # of no concern for the page
    tree.launch("test")
    assert len(tree.installs()) == 1


@pytest.mark.parametrize("fault", ["cut off", "no stamp", "no python"])
def test_a_half_made_folder_is_mended(tree: Tree, fault: str) -> None:
    tree.launch()
    (tree.venv / "leftover").touch()
    if fault == "cut off":
        (tree.venv / ".installing").touch()
    elif fault == "no stamp":
        (tree.venv / ".stamp").unlink()
    else:
        (tree.venv / "bin" / "python").unlink()
    tree.forget()
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    assert "is not whole, or was made for something else; making it anew" in done.stderr
    assert len(tree.installs()) == 1
    assert not (tree.venv / "leftover").exists()
    assert not (tree.venv / ".installing").exists()


def test_an_installation_that_was_killed_is_begun_anew(tree: Tree) -> None:
    waits = tree.answer("pip-waits")
    started = start(tree)
    wait_for(tree.venv / "constraints.txt")
    kill_group(started)
    waits.unlink()
    done = tree.launch()
    assert done.returncode == 0, done.stderr
    assert "making it anew" in done.stderr


def test_two_starts_at_once_install_once(tree: Tree) -> None:
    waits = tree.answer("pip-waits")
    first = start(tree)
    wait_for(tree.venv / "constraints.txt")
    second = start(tree, "infer")
    assert second.stderr is not None
    assert "Another launch.sh is installing" in second.stderr.readline()
    waits.unlink()
    one, two = first.communicate(timeout=120)[0], second.communicate(timeout=60)[0]
    assert first.returncode == second.returncode == 0
    assert "<webui>" in one
    assert "<instructblip><infer>" in two
    assert len(tree.installs()) == 1


def test_a_folder_of_somebody_else_is_left_alone(tree: Tree) -> None:
    tree.venv.mkdir()
    (tree.venv / "mine").write_text("precious")
    done = tree.launch()
    assert done.returncode == 1
    assert "exists, and launch.sh did not make it" in done.stderr
    assert "--venv DIR" in done.stderr
    assert [path.name for path in tree.venv.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written(tree: Tree) -> None:
    # A read-only folder would not stop root; below a regular file nobody can make one.
    (tree.home / "file").touch()
    done = tree.launch("--venv", str(tree.home / "file" / "venv"))
    assert done.returncode == 1
    assert "cannot write to" in done.stderr
    assert "a read-only folder, or somebody else's" in done.stderr
    assert "bash launch.sh --venv DIR, or set INSTRUCTBLIP_VENV=DIR" in done.stderr
    assert tree.installs() == []


def test_a_full_disk_is_said_first(tree: Tree) -> None:
    (tree.bin / "df").unlink()
    tree.program("df", "printf 'Filesystem 1K Used Avail\\n/dev/x 9 9 1048576 9 /\\n'")
    done = tree.launch()
    assert done.returncode == 1
    assert "has 1024 MB free, and about 2500 MB are needed" in done.stderr
    assert tree.installs() == []


@pytest.mark.parametrize(
    "line",
    [
        "NewConnectionError(... Failed to establish a new connection: [Errno 111])",
        "Temporary failure in name resolution",
        "ReadTimeoutError: HTTPSConnectionPool(host='x', port=443): Read timed out. ReadTimeout",
        "SSLError(SSLCertVerificationError(1, 'self-signed certificate in certificate chain'))",
        "ERROR: Could not find a version that satisfies the requirement x (from versions: none)",
    ],
)
def test_without_a_network_it_says_what_can_be_done(tree: Tree, line: str) -> None:
    tree.answer("pip-fails", line + "\n")
    done = tree.launch()
    assert done.returncode == 1
    assert "the packages could not be downloaded: no way to the package index" in done.stderr
    for way in ("HTTPS_PROXY=", "PIP_INDEX_URL=", "PIP_CERT=", "bash launch.sh --wheelhouse DIR"):
        assert way in done.stderr
    assert not (tree.venv / ".stamp").exists()
    (tree.answers / "pip-fails").unlink()
    assert tree.launch().returncode == 0  # the next start tries again


def test_a_disk_that_filled_up_meanwhile(tree: Tree) -> None:
    tree.answer("pip-fails", "OSError: [Errno 28] No space left on device\n")
    done = tree.launch()
    assert done.returncode == 1
    assert "the disk is full. Make room, use --venv DIR" in done.stderr


def test_any_other_failure_names_the_log(tree: Tree) -> None:
    tree.answer("pip-fails", "error: legacy-install-failure\n")
    done = tree.launch()
    assert done.returncode == 1
    assert f"the whole log: {tree.venv}/install.log" in done.stderr
    assert "legacy-install-failure" in (tree.venv / "install.log").read_text()


def test_versions_that_are_gone_give_way_to_the_ranges(tree: Tree) -> None:
    tree.answer("pip-fails", "ERROR: No matching distribution found for gradio==6.31.0\n")
    done = tree.launch()
    assert done.returncode == 1
    assert "trying the ranges of requirements.txt" in done.stderr
    assert len(tree.installs()) == 2
    assert (tree.venv / "constraints-loose.txt").read_text() == "torch==2.13.0\n"


def test_a_wheelhouse_serves_without_a_network(tree: Tree) -> None:
    (tree.home / "wheels").mkdir()
    tree.answer("reachable")
    done = tree.launch("--wheelhouse", "wheels")
    assert done.returncode == 0, done.stderr
    assert f"Installing from {tree.home}/wheels" in done.stderr
    assert "nothing is downloaded" in done.stderr
    (install,) = tree.installs()
    assert f"--no-index --find-links {tree.home}/wheels" in install
    assert tree.calls("https://") == []
    tree.forget()
    assert tree.launch("--wheelhouse", "wheels").stderr == ""
    assert tree.installs() == []


def test_a_wheelhouse_that_is_absent_or_lacks_something(tree: Tree) -> None:
    absent = tree.launch("--wheelhouse", "wheels")
    assert absent.returncode == 1
    assert f"--wheelhouse {tree.home}/wheels: there is no such folder" in absent.stderr
    (tree.home / "wheels").mkdir()
    tree.answer("pip-fails", "ERROR: Could not find a version (from versions: none)\n")
    lacking = tree.launch("--wheelhouse", "wheels")
    assert lacking.returncode == 1
    assert "lacks a package, or holds it for another Python or processor" in lacking.stderr
    assert "PIP_INDEX_URL" not in lacking.stderr  # of no use where a wheelhouse is


def test_a_wheelhouse_is_filled(tree: Tree) -> None:
    done = tree.launch("wheelhouse", "wheels", "--torch", "cpu")
    assert done.returncode == 0, done.stderr
    download, simulation = tree.calls("-m pip download")
    assert f"-d {tree.home}/wheels" in download
    assert "requirements.txt" in download
    assert "requirements-dev.txt" in download
    assert f"-d {tree.home}/wheels --no-deps -r {tree.root}/requirements-npu-sim.txt" in simulation
    assert f"-r {tree.root}/requirements-triton-sim.txt" in simulation
    assert "bash launch.sh --wheelhouse DIR --torch cpu" in done.stderr
    assert not tree.venv.exists()
    assert [path.name for path in tree.home.iterdir()] == ["wheels"]  # nothing is left behind


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def start(tree: Tree, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        tree.command(*arguments), env=tree.environment(), cwd=tree.home, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
