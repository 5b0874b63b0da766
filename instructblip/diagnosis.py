"""What can be told about an Ascend NPU before torch is imported: each check, and its cure.

Every function looks at a :class:`Machine`, so that a made-up tree of files can be examined as
well as the real one. Paths and fields: Ascend's driver and CANN installation guides.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from instructblip.ascend import (
    RECOMMENDED,
    SET_ENVIRONMENT,
    cann_rows,
    cann_version,
    row_for,
    torch_of,
)

HELPERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
# A line of `npu-smi info`: number and name of a chip, then its health.
_CHIP = re.compile(r"^\|\s*(\d+)\s+([\w-]+)\s*\|\s*([A-Za-z]+)\s*\|", re.MULTILINE)
# The line below it ends in used and total memory in MB.
_MEMORY = re.compile(r"(\d+)\s*/\s*(\d+)\s*\|\s*$")
_SLOW = {
    "ASCEND_LAUNCH_BLOCKING": ("1", "every operator is waited for"),
    "ASCEND_GLOBAL_LOG_LEVEL": ("0", "CANN logs everything"),
    "ASCEND_SLOG_PRINT_TO_STDOUT": ("1", "CANN's log goes to the screen"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``well`` is None where nothing is judged."""

    text: str
    well: bool | None = None

    def __str__(self) -> str:
        return f"{ {None: '      ', True: 'ok    ', False: 'FAULT '}[self.well] }{self.text}"


def _run_smi() -> str | None:
    """What ``npu-smi info`` says; None where there is none or it fails."""
    try:
        done = subprocess.run(
            ["npu-smi", "info"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _installed() -> Mapping[str, str]:
    found = {}
    for name in ("torch", "torch-npu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the checks look: files below ``root``, variables, ``npu-smi info``, Python packages."""

    root: Path = Path("/")
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    smi: str | None = field(default_factory=_run_smi)
    packages: Mapping[str, str] = field(default_factory=_installed)

    def devices(self) -> list[int]:
        """The numbers of the NPUs that show under /dev."""
        names = (path.name for path in self.root.glob("dev/davinci[0-9]*"))
        return sorted(int(n.removeprefix("davinci")) for n in names if n[7:].isdigit())

    def in_container(self) -> bool:
        """Whether this is a container, where files of the host may be hidden."""
        marks = (self.root / ".dockerenv", self.root / "run" / ".containerenv")
        return any(mark.exists() for mark in marks) or any(
            name in self.variables for name in ("container", "KUBERNETES_SERVICE_HOST")
        )

    def has_ascend(self) -> bool:
        """Whether an NPU is here, or an installation that means to use one."""
        return bool(self.devices()) or "torch-npu" in self.packages

    def library(self, name: str) -> Path | None:
        """The first file of this name on LD_LIBRARY_PATH."""
        folders = self.variables.get("LD_LIBRARY_PATH", "").split(":")
        files = (Path(folder, name) for folder in folders if folder)
        return next((file for file in files if file.exists()), None)


def examine_ascend(machine: Machine) -> Iterator[Finding]:
    """All checks, from the hardware upwards."""
    yield from _devices(machine)
    yield from _driver(machine)
    yield from _chips(machine)
    yield from _cann(machine)
    yield from _packages(machine)
    yield from _environment(machine)


def _devices(machine: Machine) -> Iterator[Finding]:
    numbers, dev = machine.devices(), machine.root / "dev"
    missing = [f"/dev/{name}" for name in HELPERS if not (dev / name).exists()]
    flags = " ".join(f"--device={name}" for name in ("/dev/davinci0", *missing))
    if not numbers:
        cure = (
            f"Start the container with {flags} -v /usr/local/Ascend/driver:/usr/local/Ascend/driver."
            if machine.in_container()
            else "Install the NPU's driver and firmware, or look at `npu-smi info` and `dmesg`."
        )
        yield Finding(f"No NPU shows under /dev. {cure}", False)
        return
    names = ", ".join(f"davinci{n}" for n in numbers)
    if missing:
        cure = (
            f"Start the container with {flags}."
            if machine.in_container()
            else "Reinstall the driver."
        )
        yield Finding(f"NPUs: {names}, without {', '.join(missing)}. {cure}", False)
        return
    shut = [
        f"/dev/{name}" for name in (*(f"davinci{n}" for n in numbers), *HELPERS)
        if not os.access(dev / name, os.R_OK | os.W_OK)
    ]  # fmt: skip
    if shut:
        yield Finding(
            f"NPUs: {names}; this user may not open {', '.join(shut)}. Add the user to the devices' "
            "group (`usermod -aG HwHiAiUser NAME`) and log in again.",
            False,
        )
        return
    yield Finding(f"NPUs: {names}.", True)


def _driver(machine: Machine) -> Iterator[Finding]:
    record = machine.root / "etc/ascend_install.info"
    for what in ("driver", "firmware"):
        home = _field(record, f"{what.capitalize()}_Install_Path_Param") or "/usr/local/Ascend"
        folder = f"{home.rstrip('/')}/{what}"
        file = machine.root / folder.lstrip("/") / "version.info"
        version = _field(file, "Version")
        if version:
            yield Finding(f"{what.capitalize()} {version}.", True)
        elif what == "firmware" and machine.in_container():
            yield Finding("Firmware: a container does not show it.")
        else:
            cure = (
                f"Start the container with -v {folder}:{folder}."
                if machine.in_container()
                else f"Install the NPU's {what}."
            )
            yield Finding(f"No {what}: {folder}/version.info is absent. {cure}", False)


def _field(file: Path, name: str) -> str | None:
    """The value of ``name=`` in a file of such lines."""
    if not file.is_file():
        return None
    found = re.search(rf"^{name}=\s*(\S+)", file.read_text("utf-8", "replace"), re.MULTILINE)
    return found[1] if found else None


def _chips(machine: Machine) -> Iterator[Finding]:
    if machine.smi is None:
        yield Finding("Chip, health, memory: not known, `npu-smi info` does not run here.")
        return
    found = False
    lines = machine.smi.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        chip = _CHIP.match(line)
        if chip is None or chip[3] == "NA":
            continue
        found = True
        memory = _MEMORY.search(below)
        room = f", {memory[1]} of {memory[2]} MB of memory in use" if memory else ""
        well = chip[3] == "OK"
        cure = "" if well else f" See `npu-smi info -t health -i {chip[1]}`; restart the NPU."
        yield Finding(f"Chip {chip[1]}: {chip[2]}, health {chip[3]}{room}.{cure}", well)
    if not found:
        yield Finding("`npu-smi info` lists no chip. Reinstall the driver, or see `dmesg`.", False)


def _cann(machine: Machine) -> Iterator[Finding]:
    named = machine.variables.get("ASCEND_HOME_PATH")
    if not named:
        yield Finding(f"CANN: ASCEND_HOME_PATH is not set. {SET_ENVIRONMENT}", False)
        return
    home = Path(named)
    if not home.is_dir():
        yield Finding(f"CANN: ASCEND_HOME_PATH={named} is no folder. {SET_ENVIRONMENT}", False)
        return
    version = cann_version(home)
    oldest, newest = cann_rows()[-1].cann, cann_rows()[0].cann
    if version is None:
        yield Finding(f"CANN in {home}: its version cannot be read.")
    elif row_for(version) is None:
        yield Finding(
            f"CANN {version} in {home} is too old: {oldest} or newer is needed. Upgrade to CANN "
            f"{newest}, and the driver with it.",
            False,
        )
    else:
        yield Finding(f"CANN {version} in {home}.", True)
    yield from _libraries(machine)


def _libraries(machine: Machine) -> Iterator[Finding]:
    missing = [n for n in ("libascendcl.so", "libhccl.so") if machine.library(n) is None]
    if missing:
        yield Finding(
            f"LD_LIBRARY_PATH leads to no {' and no '.join(missing)}. {SET_ENVIRONMENT}", False
        )
    else:
        yield Finding("CANN's libraries are on LD_LIBRARY_PATH.", True)
    if machine.library("libatb.so") is None:
        yield Finding(
            "NNAL: LD_LIBRARY_PATH leads to no libatb.so. Install Ascend-cann-nnal in the version "
            f"of CANN. {SET_ENVIRONMENT}",
            False,
        )
    else:
        yield Finding(f"NNAL in {machine.library('libatb.so')}.", True)
    operators = machine.variables.get("ASCEND_OPP_PATH")
    if operators and not Path(operators).is_dir():
        yield Finding(
            f"ASCEND_OPP_PATH={operators} is no folder: operators would be missing. Install the "
            f"operator package of the chip in the version of CANN. {SET_ENVIRONMENT}",
            False,
        )


def _packages(machine: Machine) -> Iterator[Finding]:
    npu, torch = machine.packages.get("torch-npu"), machine.packages.get("torch")
    if npu is None:
        yield Finding("torch-npu is not installed. Run `bash launch.sh --torch npu`.", False)
        return
    cure = "Run `bash launch.sh --torch npu`, which installs the pair that fits."
    if torch is None or torch.partition("+")[0] != torch_of(npu):
        yield Finding(f"torch-npu {npu} wants torch {torch_of(npu)}, not {torch}. {cure}", False)
        return
    home = machine.variables.get("ASCEND_HOME_PATH")
    version = cann_version(Path(home)) if home and Path(home).is_dir() else None
    row = row_for(version) if version else None
    if row is None:
        yield Finding(f"torch {torch} with torch-npu {npu}.", True)
    elif npu in row.torch_npu:
        yield Finding(f"torch {torch} with torch-npu {npu}, made for CANN {row.cann}.", True)
    else:
        yield Finding(
            f"torch-npu {npu} is not one of those made for CANN {version} "
            f"({', '.join(row.torch_npu)}); it may work. {cure}"
        )


def _environment(machine: Machine) -> Iterator[Finding]:
    variables = machine.variables
    for name, value in RECOMMENDED.items():
        own = variables.get(name)
        if not own:
            yield Finding(
                f"{name} is not set, which is slower; `source launch.sh env` sets {value}."
            )
        else:
            yield Finding(f"{name}={own}.", True if own == value else None)
    for name, (value, why) in _SLOW.items():
        if variables.get(name) == value:
            yield Finding(f"{name}={value} is slow ({why}): unset it for normal use.")
    yield from _visible(machine)


def _visible(machine: Machine) -> Iterator[Finding]:
    named = machine.variables.get("ASCEND_RT_VISIBLE_DEVICES")
    if named is None:
        return
    numbers, present = [part.strip() for part in named.split(",")], machine.devices()
    wrong = [n for n in numbers if not n.isdigit() or (present and int(n) not in present)]
    if wrong or len(set(numbers)) < len(numbers):
        yield Finding(
            f"ASCEND_RT_VISIBLE_DEVICES={named} does not fit the NPUs here ({present}): give numbers "
            "of these, separated by commas, each once; or unset it.",
            False,
        )
    else:
        yield Finding(
            f"ASCEND_RT_VISIBLE_DEVICES={named}: these are npu:0 to npu:{len(numbers) - 1}.", True
        )
