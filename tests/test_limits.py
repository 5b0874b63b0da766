"""Every test has a limit, and what tests start hears Ctrl-C wherever the suite was started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HANGS = """
import threading
import time

def test_hangs():
    threading.Thread(target=time.sleep, args=(3,), name="somebody-else").start()
    time.sleep(600)

def test_comes_after(): pass
"""


def test_the_limit_holds_for_all_tests_here(request: pytest.FixtureRequest) -> None:
    assert request.config.pluginmanager.hasplugin("timeout")
    assert 120 <= float(request.config.getini("timeout")) <= 600


def test_what_hangs_fails_with_the_stacks_and_the_rest_go_on(pytester: pytest.Pytester) -> None:
    (pytester.path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"))
    pytester.makepyfile(HANGS)
    result = pytester.runpytest_subprocess("-o", "timeout=1", "-o", "testpaths=.")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*time.sleep(600)*", "*Timeout*1*"])
    assert "somebody-else" in result.stdout.str() + result.stderr.str()


def test_what_a_test_starts_hears_ctrl_c() -> None:
    sleeping = subprocess.Popen(["sleep", "600"])
    sleeping.send_signal(signal.SIGINT)
    assert sleeping.wait(90) == -signal.SIGINT


def test_in_the_background_too() -> None:
    """``nohup … &`` in a script: whatever is started there inherits that Ctrl-C is ignored."""
    this = f"{__file__}::{test_what_a_test_starts_hears_ctrl_c.__name__}"
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    done = subprocess.run(
        [*ignoring, sys.executable, "-m", "pytest", this], cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
