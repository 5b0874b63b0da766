"""One simulated NPU for the tests that only look, and fresh ones for those that break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.npu.build import missing
from tests.npu.simulated import Simulated


@pytest.fixture(scope="session", autouse=True)
def _here() -> None:
    """The simulation needs g++ and the wheel, which `bash launch.sh test` installs."""
    if why := missing():
        pytest.skip(f"no simulated NPU: {why}; bash launch.sh test installs it")


@pytest.fixture(scope="session")
def npu(_here: None) -> Iterator[Simulated]:
    """Two Ascend 910B3 that compute; what names no number runs on the first."""
    process = Simulated(count=2)
    yield process
    process.end()


@pytest.fixture
def new_npu(_here: None) -> Iterator[Callable[..., Simulated]]:
    """Simulated NPUs of a test's own, with the faults that it wants."""
    made: list[Simulated] = []

    def make(**options: object) -> Simulated:
        made.append(Simulated(**options))
        return made[-1]

    yield make
    for process in made:
        process.end()
