"""``python -m instructblip eval`` on the embedded model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from instructblip import cli


def test_it_prints_each_type_and_writes_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    flags = ["--types", "what", "--per-type", "8", "--seed", "3", "--json", str(out)]
    assert cli.main(["eval", *flags]) == 0
    printed = capsys.readouterr().out
    share = re.search(r"^\| what \| ([\d.]+)% \| 8 \|", printed, re.MULTILINE)
    assert share
    figures = json.loads(out.read_text("utf-8"))["what"]
    assert figures["asked"] == 8
    assert figures["right"] == round(float(share[1]) / 100 * 8) >= 6  # the shipped model sees
    assert "refused, made: " in printed
