"""Strict mode: green by skipping is a defect.

With ``INSTRUCTBLIP_STRICT=1`` (or ``--strict-skips``) the run fails when a test was skipped that
``allowed-skips.txt`` does not list, and, when the whole suite was asked for, when a folder of
``minimums.toml`` ran fewer tests than it states.
"""

from __future__ import annotations

import os
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="fail on skips and missing tests")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a half of the suite: whoever has both halves counts
        return
    if config.getoption("--strict-skips") or os.environ.get("INSTRUCTBLIP_STRICT") == "1":
        config.pluginmanager.register(Strict(config), "strict-skips")


class Strict:
    """Counts what ran and what was skipped, and turns a green run red."""

    def __init__(self, config: pytest.Config) -> None:
        root = config.rootpath / "tests"
        self._allowed = read_allowed(root / "allowed-skips.txt")
        minimums = root / "minimums.toml"
        self._minimums: dict[str, int] = (
            tomllib.loads(minimums.read_text("utf-8")) if minimums.exists() else {}
        )
        narrowed = config.getoption("keyword") or config.getoption("markexpr")
        asked = [Path(a.partition("::")[0]).resolve() for a in config.args]
        self._whole = not narrowed and any(root == a or root.is_relative_to(a) for a in asked)
        self._ran: dict[str, int] = {}
        self._skipped: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.append(report.nodeid)
        elif report.when == "call":
            for folder in self._minimums:
                if report.nodeid.startswith(folder.rstrip("/") + "/"):
                    self._ran[folder] = self._ran.get(folder, 0) + 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped.append(report.nodeid)

    def faults(self) -> list[str]:
        """What makes this run fail."""
        found = [
            f"skipped, and not in tests/allowed-skips.txt: {name}"
            for name in self._skipped
            if not any(fnmatchcase(name, pattern) for pattern in self._allowed)
        ]
        if self._whole:
            for folder, least in self._minimums.items():
                if self._ran.get(folder, 0) < least:
                    found.append(
                        f"{folder} ran {self._ran.get(folder, 0)} tests; at least {least} must run"
                    )
        return found

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.faults() and exitstatus in (0, 5):
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for fault in self.faults():
            terminalreporter.write_line(f"STRICT: {fault}", red=True)


def read_allowed(path: Path) -> list[str]:
    """Patterns of node ids; ``#`` begins the reason, which every line must have."""
    patterns = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        pattern, _, reason = line.partition("#")
        if pattern.strip():
            if not reason.strip():
                raise pytest.UsageError(f"{path}: '{line}' needs a reason after '#'")
            patterns.append(pattern.strip())
    return patterns
