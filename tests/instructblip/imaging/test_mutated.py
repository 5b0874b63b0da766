"""500 changed pictures of all formats; 20,000 by ``python -m tests.mutated_pictures``."""

from pathlib import Path

import pytest

from tests import mutated_pictures
from tests.mutated_pictures import Seed, is_good, outcome, run, seeds


def test_nothing_but_picture_errors_comes_out_of_500_changed_pictures() -> None:
    found = run(0, 500, seed=1)
    assert sum(found.values()) == 500
    assert is_good(found), found
    assert found["read"] > 50
    assert found["metadata changed, read"] > 50
    assert found["picture_truncated"] > 50


@pytest.mark.parametrize("source", seeds(), ids=lambda seed: seed.name)
def test_the_unchanged_ones_are_read(source: Seed, tmp_path: Path) -> None:
    assert outcome_of(source.data, source, tmp_path) == "metadata changed, read"


def test_what_should_not_be_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = seeds()[0]
    assert outcome_of(source.data[:300], source, tmp_path).startswith("REFUSED jpeg")
    assert outcome_of(seeds()[2].data, source, tmp_path) == "DIFFERS jpeg"

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(mutated_pictures, "prepare", fails)
    assert outcome_of(source.data, source, tmp_path) == "WRONG jpeg: ZeroDivisionError()"


def outcome_of(data: bytes, source: Seed, folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutated_pictures, "changed", lambda number, seed: (source, data, True))
        return outcome(0, 0, folder)
