"""``doctor --smoke`` on the simulated NPU: the page that the owner of a real one will paste."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.npu.simulated import environment, run

Done = subprocess.CompletedProcess[str]

START = (
    "import instructblip.devices; from tests.npu import compute, operators; "
    "compute.install(); operators.install()\n"
)
ALONE = (
    "import sys; from instructblip import cli; "
    "sys.exit(cli.main(['doctor', '--smoke', '--device', 'npu']))"
)
SMOKE = START + ALONE
FALLBACK = (
    START
    + """
import torch
from instructblip import smoke

def part(device, dtype):
    torch.mode(torch.ones(1, 3, device=device))
    yield smoke.Finding("done")

fallen = set()
smoke._watched(part, torch.device("npu"), torch.float16, fallen)
print(smoke._fallbacks(torch.device("npu"), fallen))
"""
)
SMALL = 8 * 2**30  # bytes of device memory: too few for the full size


CHIPS = ("Ascend910B3", "Ascend310P3")


def _all() -> dict[str, tuple[str, dict[str, str]]]:
    """Code and environment of each process, by a name."""
    free = environment(memory=SMALL)
    del free["TORCH_NPU_FALLBACK_CPU_DISABLE"]
    failing = environment(memory=SMALL, faults="aclrtSetDevice=507033")
    pages = {soc: (SMOKE, environment(soc=soc, memory=SMALL)) for soc in CHIPS}
    return pages | {"fallback": (FALLBACK, free), "failing": (ALONE, failing)}


@pytest.fixture(scope="module")
def ran() -> Iterator[dict[str, Future[Done]]]:
    """All processes of this file, two at a time: most of each is importing torch."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, code, **env) for name, (code, env) in _all().items()}


@pytest.mark.parametrize(
    ("soc", "half", "hint"),
    [("Ascend910B3", "float16", "Ascend910B3)"), ("Ascend310P3", "float16", "no bf16: fp16")],
)
def test_the_page(soc: str, half: str, hint: str, ran: dict[str, Future[Done]]) -> None:
    done = ran[soc].result()
    said = done.stdout
    assert done.returncode == 1, done.stderr  # for want of a driver and of /dev/davinci0
    assert hint in said
    for words in (
        "ok    Tiny random model in float32", f"ok    Tiny random model in {half}",
        "12 of 12 answers are the CPU's", "the full size is left out with 9 GB free",
        "ok    No operator fell back", "Most memory in use", "\nThe device works.\n",
    ):  # fmt: skip
        assert words in said, said


def test_a_fallback_to_the_cpu_is_noticed(ran: dict[str, Future[Done]]) -> None:
    done = ran["fallback"].result()
    assert done.stdout == "FAULT Operators that ran on the CPU instead: aten::mode.\n", done.stderr


def test_a_chip_that_does_not_start_is_explained(ran: dict[str, Future[Done]]) -> None:
    done = ran["failing"].result()
    assert done.returncode == 1
    assert "The NPU could not be started" in done.stdout, done.stdout + done.stderr
    assert "The device does not work as it should" in done.stdout
