"""Builds the simulated CANN that the torch_npu wheel is loaded over; takes a few seconds, once."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "runtime"
_PIN = re.compile(r"^torch-npu==(\S+)$", re.MULTILINE)
VERSION = _PIN.findall((HERE.parents[1] / "requirements-npu-sim.txt").read_text("utf-8"))[0]
HOME = Path(sys.prefix) / "npu-simulation"
WHEEL = HOME / f"torch-npu-{VERSION}"
# Libraries that only have to be there.
EMPTY = ("hccl", "ge_runner", "graph", "acl_tdt_channel", "nnopbase")
# Looked up at run time, so that no table of symbols names them.
LAZY = (
    "aclrtSetDeviceSatMode", "aclrtSetStreamOverflowSwitch", "aclrtSetOpExecuteTimeOut",
    "aclrtSetOpWaitTimeout", "aclrtSetStreamFailureMode",
)  # fmt: skip
# Folders of a CANN that torch_npu looks for.
FOLDERS = ("runtime", "compiler", "opp")
_OURS = re.compile(r"^(acl|rt[A-Z]|Msprof|_ZN3atb)")
_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w")


def missing() -> str:
    """What is not here to build or run the simulation with; empty when all is."""
    wanted = {"g++": "g++", "nm": "binutils"}
    absent = [package for tool, package in wanted.items() if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    return "" if (WHEEL / "torch_npu").is_dir() else f"torch-npu {VERSION} is not in {WHEEL}"


def build(trace: bool) -> Path:
    """The folder for LD_LIBRARY_PATH; ``trace`` adds the libraries that count kernel launches."""
    sources = sorted(SOURCES.iterdir())
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in (*sources, Path(__file__))))
    target = HOME / f"runtime-{digest.hexdigest()[:12]}-{'trace' if trace else 'compute'}"
    if target.is_dir():
        return target
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    _make(partial, trace)
    try:
        partial.rename(target)
    except OSError:  # another run was first
        shutil.rmtree(partial)
    return target


def _make(folder: Path, trace: bool) -> None:
    for part in FOLDERS:
        (folder / part).mkdir()
    libraries = sorted((WHEEL / "torch_npu" / "lib").glob("*.so"))
    wanted = {name for library in libraries for name in _symbols(library, "--undefined-only")}
    wanted = {name for name in wanted if _OURS.match(name)} | set(LAZY)
    _compile(folder, "acl_op_compiler", SOURCES / "op_compiler.cpp")
    _compile(folder, "ascendcl", SOURCES / "ascendcl.cpp")
    have = _exported(folder / "libascendcl.so") | _exported(folder / "libacl_op_compiler.so")
    stubs = folder / "stubs.cpp"
    plain = sorted(n for n in wanted - have if not n.startswith("_ZN3atb"))
    stubs.write_text("".join(f'extern "C" int {n}(...) {{ return 0; }}\n' for n in plain))
    _compile(folder, "ascendcl", SOURCES / "ascendcl.cpp", stubs)
    atb = sorted(n for n in wanted if n.startswith("_ZN3atb"))
    stubs.write_text("".join(f'extern "C" int {n}(...) {{ return 0; }}\n' for n in atb))
    _compile(folder, "atb", stubs)
    stubs.write_text("")
    for name in EMPTY:
        _compile(folder, name, stubs)
    if trace:
        (folder / "operators.inc").write_text(_operators(libraries))
        _compile(folder, "opapi", SOURCES / "opapi.cpp")
    stubs.unlink()


def _operators(libraries: list[Path]) -> str:
    """OPERATOR(name) for every aclnn name that the wheel's libraries hold."""
    names: set[str] = set()
    for library in libraries:
        names.update(m.decode() for m in re.findall(rb"\0(aclnn\w+)(?=\0)", library.read_bytes()))
    names = {name.removesuffix("GetWorkspaceSize") for name in names}
    return "".join(f"OPERATOR({name})\n" for name in sorted(names))


def _compile(folder: Path, name: str, *sources: Path) -> None:
    include = WHEEL / "torch_npu" / "include"
    command = ["g++", *_FLAGS, f"-I{include}", f"-I{folder}", "-o", f"{folder}/lib{name}.so"]
    subprocess.run([*command, *map(str, sources)], check=True)


def _symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", which, library], capture_output=True, text=True, check=True
    )
    return {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines()}


def _exported(library: Path) -> set[str]:
    return _symbols(library, "--defined-only")
