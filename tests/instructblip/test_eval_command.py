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
    assert figures["exact"] == round(float(share[1]) / 100 * 8) >= 6  # the shipped model sees
    assert figures["share"] == figures["exact"] / 8
    assert "refused, made: " in printed


def test_what_a_type_needs_is_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--types", "where", "colour+", "--per-type", "12", "--seed", "4", "--ablate"]
    assert cli.main(["eval", *flags]) == 0
    table = capsys.readouterr().out.partition("| type | whole |")[2]
    row = re.search(r"^\| where \|(.*)\|$", table, re.MULTILINE)
    assert row
    whole, instruction, _, picture, guess = (float(cell.strip(" *%")) for cell in row[1].split("|"))
    assert whole >= 75
    assert instruction < whole - 30
    assert picture <= 34
    assert guess == pytest.approx(11.1)
    follow = re.search(r"^\| colour\+ \|(.*)\|$", table, re.MULTILINE)
    assert follow
    assert float(follow[1].split("|")[2].strip(" *%")) < float(follow[1].split("|")[0].strip(" %"))
