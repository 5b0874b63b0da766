"""A tree with launch.sh, small lists, and a PATH that holds a fake Python: no network, no installation."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What launch.sh uses of the system; anything else would be a new need.
TOOLS = (
    "awk", "bash", "cat", "cksum", "cp", "cut", "df", "dirname", "du", "find", "flock", "grep",
    "head", "id", "ls", "mkdir", "mktemp", "mv", "rm", "sed", "sleep", "tee", "tr", "uname",
)  # fmt: skip
LISTS = {
    "requirements.txt": "torch>=2\ngradio>=6\n",
    "requirements-dev.txt": "pytest\n",
    "requirements-npu-sim.txt": "# for tests\ntorch-npu==2.13.0\n",
    "requirements-triton-sim.txt": "# for tests\ntriton==3.6.0\n",
    "requirements-npu.txt": "-r requirements.txt\ntorch==1.0 ; x\ntorch-npu==1.0.post1 ; x\n",
    "constraints-cpu.txt": "gradio==6.31.0\nnumpy==2.4.6\ntorch==2.13.0\n",
}


class Tree:
    """A checkout and a machine around it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.machine = folder / "tree", folder / "bin", folder / "machine"
        self.answers, self.calls_file = folder / "answers", folder / "calls"
        self.home = folder / "home"
        for made in (self.root, self.bin, self.machine / "dev", self.answers, self.home):
            made.mkdir(parents=True)
        for name in ("launch.sh", "instructblip/cann.sh", "instructblip/cann_versions.txt"):
            (self.root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        for name, text in LISTS.items():
            (self.root / name).write_text(text)
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is not None:  # macOS has no flock; launch.sh does without it then
                (self.bin / tool).symlink_to(found)
        self.venv = self.root / ".venv"

    def python(self, name: str = "python3", unfit: str = "") -> Path:
        """Put a Python on PATH; ``unfit`` is what it says about itself."""
        path = self.bin / name
        shutil.copy(HERE / "fake_python.sh", path)
        path.chmod(0o755)
        if unfit:
            self.answer(f"fit-{name}", unfit)
        return path

    def program(self, name: str, script: str) -> None:
        """Put a program on PATH."""
        path = self.bin / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    def device(self, path: str) -> None:
        """Give the machine a device file."""
        (self.machine / path.lstrip("/")).touch()

    def cann(
        self, version: str = "9.1.0", place: str = "usr/local/Ascend/cann", *, home: str = "",
        root: Path | None = None,
    ) -> Path:  # fmt: skip
        """Install a CANN; ``home`` is where ASCEND_HOME_PATH leads, below the folder of set_env.sh.

        Its set_env.sh is as careless as the real one: it reads a variable that nobody set, calls
        a command that fails, and names variables as it likes.
        """
        folder = (root or self.machine) / place
        target = folder / home
        (target / "x86_64-linux").mkdir(parents=True)
        record = target / "x86_64-linux" / "ascend_toolkit_install.info"
        record.write_text(f"package_name=Ascend-cann-toolkit\nversion={version}\narch=x86_64\n")
        (folder / "set_env.sh").write_text(
            "file=lost; name=lost; CANN=lost; COMMAND=lost; false; [ -n $ZSH_VERSION ] || x=1\n"
            f"export ASCEND_HOME_PATH={target}\n"
            f"export LD_LIBRARY_PATH={target}/lib64:$LD_LIBRARY_PATH\n"
            f"export SEEN='CANN {version}'\n"
            "return 3\n"
        )
        return folder

    def nnal(self, place: str = "usr/local/Ascend/nnal/atb") -> Path:
        """Install an NNAL, whose set_env.sh asks Python when it is not told the ABI."""
        folder = self.machine / place
        folder.mkdir(parents=True)
        (folder / "set_env.sh").write_text(
            f'[ "$1" = --cxx_abi=1 ] || return 1\nexport ATB_HOME_PATH={folder}\n'
        )
        return folder

    def npus(self, count: int = 1) -> None:
        """Give the machine NPUs, with what their driver puts beside them."""
        for name in (*map(str, range(count)), "_manager"):
            self.device(f"/dev/davinci{name}")
        self.device("/dev/devmm_svm")
        self.device("/dev/hisi_hdc")

    def answer(self, name: str, text: str = "") -> Path:
        """What the fake Python says to a question; see fake_python.sh."""
        path = self.answers / name
        path.write_text(text)
        return path

    def command(self, *arguments: str) -> list[str]:
        """The command line of a start."""
        return [str(self.bin / "bash"), str(self.root / "launch.sh"), *arguments]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Nothing of this machine but what the tests put there."""
        return {
            "PATH": str(self.bin),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "CALLS": str(self.calls_file),
            "ANSWERS": str(self.answers),
            "LAUNCH_SYSROOT": str(self.machine),
            "LC_ALL": "C",
            **(more or {}),
        }

    def launch(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``bash launch.sh ARGUMENTS`` in the home folder to its end."""
        return subprocess.run(
            self.command(*arguments), env=self.environment(environment), cwd=self.home,
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def calls(self, containing: str = "") -> list[str]:
        """The calls of the fake Python so far."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if containing in line]

    def forget(self) -> None:
        """Begin a new list of calls."""
        self.calls_file.unlink(missing_ok=True)

    def installs(self) -> list[str]:
        """The installations so far."""
        return self.calls("-m pip install")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A machine with one fit Python."""
    made = Tree(tmp_path)
    made.python()
    return made


@pytest.fixture
def bare_tree(tmp_path: Path) -> Tree:
    """A machine without Python."""
    return Tree(tmp_path)
