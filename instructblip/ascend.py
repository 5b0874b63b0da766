"""What is known about Ascend NPUs without one: versions that fit together, and what errors mean.

Free of torch: ``import torch`` itself fails where torch-npu is installed and CANN is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("cann_versions.txt")
# Set by launch.sh (instructblip/cann.sh) as well, where the user has not. Source: torch-npu's performance guide.
RECOMMENDED: Mapping[str, str] = {
    "TASK_QUEUE_ENABLE": "2",
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
    "CPU_AFFINITY_CONF": "1",
}
SET_ENVIRONMENT = "Run `source launch.sh env`, or start with `bash launch.sh`."


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of CANN or torch-npu in plain words.

    ``signs`` are what its message holds: an error code, matched as a whole number, or a piece of
    text. ``memory`` is set where the device has no memory left.
    """

    signs: tuple[str, ...]
    what: str
    cure: str
    memory: bool = False

    def __str__(self) -> str:
        return f"{self.what} {self.cure}"

    def fits(self, message: str) -> bool:
        """Whether ``message`` speaks of this fault."""
        return any(
            re.search(rf"(?<!\d){sign}(?!\d)", message) if sign.isdigit() else sign in message
            for sign in self.signs
        )


# Codes: acl_rt.h and acl_base.h of CANN, as torch-npu prints them. The first that fits counts.
FAULTS: tuple[Fault, ...] = (
    Fault(
        ("libatb.so",),
        "NNAL, CANN's library of transformer operators, was not found.",
        "Install Ascend-cann-nnal in the version of CANN, then start with `bash launch.sh`, which "
        "sources nnal/atb/set_env.sh.",
    ),
    Fault(
        ("libascend_hal.so",),
        "The NPU's driver, which has libascend_hal.so, was not found.",
        "Install the driver; in a container, hand over the folder /usr/local/Ascend/driver and start "
        "with `bash launch.sh`.",
    ),
    Fault(
        ("not in libopapi.so",),
        "CANN is older than torch-npu: it lacks an operator.",
        "Upgrade CANN, or run `bash launch.sh --torch npu`, which installs the torch-npu that fits.",
    ),
    Fault(
        ("libhccl.so", "libascendcl.so", "Failed to load the backend extension: torch_npu"),
        "torch-npu is installed, and CANN's libraries were not found.",
        SET_ENVIRONMENT,
    ),
    Fault(
        ("NPU out of memory", "207001", "207018"),
        "The NPU has no memory left.",
        "End other programs on it (`npu-smi info` lists them), or choose another with --device npu:N.",
        memory=True,
    ),
    Fault(
        ("107001",),
        "There is no NPU of this number.",
        "Use --device npu:0 or another number below the count of NPUs; ASCEND_RT_VISIBLE_DEVICES "
        "renumbers them from 0.",
    ),
    Fault(
        ("107002",),
        "The NPU was used from a thread that has not opened it.",
        "This is a fault of this program: please report it with the lines above. Start it again.",
    ),
    Fault(
        ("207004",),
        "The NPU is not available, or ASCEND_RT_VISIBLE_DEVICES names one that is not there.",
        "Compare that variable with `npu-smi info`; unset it to use all. In a container, hand over "
        "the device with --device=/dev/davinci0.",
    ),
    Fault(
        ("507008",),
        "The chip's name cannot be read; this is seen in containers.",
        "Hand over /dev/davinci_manager, /dev/devmm_svm, /dev/hisi_hdc and the folder "
        "/usr/local/Ascend/driver to the container.",
    ),
    Fault(
        ("507033",),
        "The NPU could not be started: CANN's operators are not those of this chip, or the "
        "device is not visible.",
        "Install the operator package of this chip (Ascend-cann-kernels or -ops, in the version of "
        "CANN); check ASCEND_OPP_PATH and ASCEND_RT_VISIBLE_DEVICES.",
    ),
    Fault(
        ("507014",),
        "An operator ran too long on the NPU's AI core and was ended.",
        "Start the program again. If it comes back, look at `npu-smi info` and report the operator "
        "named above.",
    ),
    Fault(
        ("507015",),
        "An operator failed on the NPU's AI core.",
        "Start the program again. If it comes back, set ASCEND_LAUNCH_BLOCKING=1 to learn which "
        "operator it is, and report it.",
    ),
    Fault(
        ("507018",),
        "An operator failed on the NPU's AI CPU.",
        "Start the program again. If it comes back, set ASCEND_LAUNCH_BLOCKING=1 to learn which "
        "operator it is, and report it.",
    ),
    Fault(
        ("SetPrecisionMode", "500001"),
        "CANN's operator compiler did not start; mostly a Python package that it imports is missing.",
        "Install requirements-npu.txt into this Python, or start with `bash launch.sh`.",
    ),
    Fault(
        ("fall back to run on the CPU",),
        "An operator has no kernel in this CANN and ran on the CPU: slow, not wrong.",
        "Install the operator package of this chip in the version of CANN, or upgrade both.",
    ),
)  # fmt: skip


def explain(message: object) -> Fault | None:
    """The known fault that an error or its message speaks of, if any."""
    text = str(message)
    return next((fault for fault in FAULTS if fault.fits(text)), None)


@dataclass(frozen=True, slots=True)
class CannRow:
    """A line of the table: a CANN and the torch-npu made for it, the one to install first."""

    cann: str
    newest_python: str
    torch_npu: tuple[str, ...]


@cache
def cann_rows() -> tuple[CannRow, ...]:
    """The table of versions, newest first."""
    lines = (line.split() for line in TABLE.read_text("utf-8").splitlines())
    return tuple(CannRow(w[0], w[1], tuple(w[2:])) for w in lines if w and not w[0].startswith("#"))


def row_for(cann: str) -> CannRow | None:
    """The line of a CANN version: the newest that is not newer. None: too old, or no version."""
    number = _number(cann)
    if number is None:
        return None
    return next((row for row in cann_rows() if (_number(row.cann) or number) <= number), None)


def _number(version: str) -> tuple[int, int] | None:
    """Major and minor of a version such as ``8.3.RC1``; its patches fit together."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return None if found is None else (int(found[1]), int(found[2]))


def torch_of(torch_npu: str) -> str:
    """The torch that a torch-npu wants: 2.9.0 for 2.9.0.post2."""
    return torch_npu.partition(".post")[0]


def cann_version(home: Path) -> str | None:
    """The version of the CANN in the folder ``ASCEND_HOME_PATH`` names, if it can be read.

    The toolkit's own record counts, then that of another package, then the folder's name.
    """
    for file in _records(home):
        found = re.search(r"^version=\s*(\S+)", file.read_text("utf-8", "replace"), re.MULTILINE)
        if found:
            return found[1]
    found = re.search(r"(\d+\.\d+[.\w]*)$", home.resolve().name)
    return found[1] if found else None


def _records(home: Path) -> Iterator[Path]:
    for package in ("toolkit", "nnae", "nnrt", "*"):
        for folder in ("*-linux/", ""):
            yield from sorted(home.glob(f"{folder}ascend_{package}_install.info"))
