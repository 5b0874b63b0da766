"""A process in which torch finds a simulated NPU, and calls into it from a test.

With torch-npu on its path and no CANN ``import torch`` fails, so only this process sees it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.npu.build import WHEEL, build

# TORCH_DEVICE_BACKEND_AUTOLOAD: instructblip has set it here, and a fresh process starts without.
NOT_INHERITED = ("ASCEND_", "SIMULATED_", "TORCH_DEVICE_")
ROOT = Path(__file__).resolve().parents[2]


class Failed(AssertionError):
    """A case failed in the other process; the message is its traceback."""


def environment(*, trace: bool = False, **simulated: object) -> dict[str, str]:
    """The environment of a simulated NPU.

    ``simulated``: count, soc, memory (bytes) and faults ("function=code,…") of the device.
    """
    runtime = str(build(trace))
    env = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
    env |= {f"SIMULATED_NPU_{k.upper()}": str(v) for k, v in simulated.items()}
    env |= {
        "LD_LIBRARY_PATH": runtime, "ASCEND_HOME_PATH": runtime, "ASCEND_OPP_PATH": runtime,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{WHEEL}", "TASK_QUEUE_ENABLE": "0",
        "TORCH_NPU_FALLBACK_CPU_DISABLE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "SIMULATED_NPU_TRACE": str(int(trace)),
    }  # fmt: skip
    return env


class Simulated:
    """One process on a simulated NPU; :meth:`call` runs a function of ``tests.npu`` in it."""

    def __init__(self, *, trace: bool = False, **simulated: object) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 open as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.npu.worker", "trace" if trace else "compute"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
            env=environment(trace=trace, **simulated), cwd=ROOT, bufsize=1,
        )  # fmt: skip

    def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Run ``module.function`` there; arguments and result are what JSON can hold."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([function, args, kwargs]) + "\n")
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it died, now or in an earlier test
            line = ""
        if not line:
            raise Failed(f"the process died in {function}:\n{self.end()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{function} in the simulation:\n{answer['error']}")
        return answer["result"]

    def end(self) -> str:
        """Stop it. → what it said on stderr."""
        try:
            self._process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        if not self._said.closed:
            self._said.seek(0)
            self.said = self._said.read()
            self._said.close()
        return self.said


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process with exactly this much of the simulation in ``env``."""
    return subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
