"""The guard against green by skipping guards."""

from pathlib import Path

import pytest

from tests import strict

SUITE = """
import pytest
def test_runs(): pass
def test_skips(): pytest.skip("no reason good enough")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    (pytester.path / "tests").mkdir()
    # A copy under another name: the little suite has a folder "tests" of its own.
    source = Path(strict.__file__).read_text("utf-8")
    (pytester.path / "strictness.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    monkeypatch.setenv("INSTRUCTBLIP_STRICT", "0")
    (pytester.path / "tests" / "test_some.py").write_text(SUITE)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_subprocess("-p", "strictness", *arguments)


def test_a_skip_is_fine_without_strict_mode(suite: pytest.Pytester) -> None:
    assert run(suite, "tests").ret == 0


def test_an_unlisted_skip_fails(suite: pytest.Pytester) -> None:
    result = run(suite, "--strict-skips", "tests")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*STRICT: skipped*test_skips*"])


def test_a_listed_skip_passes(suite: pytest.Pytester) -> None:
    (suite.path / "tests" / "allowed-skips.txt").write_text("*::test_skips  # known here\n")
    assert run(suite, "--strict-skips", "tests").ret == 0


def test_too_few_tests_fail_only_when_the_whole_suite_was_asked_for(suite: pytest.Pytester) -> None:
    (suite.path / "tests" / "allowed-skips.txt").write_text("*::test_skips  # known here\n")
    (suite.path / "tests" / "minimums.toml").write_text('"tests" = 5\n')
    result = run(suite, "--strict-skips", "tests")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*tests ran 1 tests; at least 5 must run*"])
    assert run(suite, "--strict-skips", "tests/test_some.py").ret == 0
