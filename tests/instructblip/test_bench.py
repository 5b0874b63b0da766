"""``bench`` runs every part on a small model and writes what it measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from instructblip import cli
from instructblip.bench import Clock
from instructblip.engine.base import Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.fused import half_arithmetic, pack_linears, packing
from instructblip.measures import (
    _their_prefill,
    _through_engine,
    filled,
    spare_output_copy,
    their_cache,
    their_step,
)
from instructblip.shapes import SHAPES, Shape, random_model
from instructblip.weight_kinds import weight_bytes
from tests.tiny import picture

QUICK = ["--repeats", "1", "--turns", "1", "3", "--batches", "2", "--seconds", "0.5"]


def bench(*args: str) -> int:
    return cli.main(["bench", *args, *QUICK])


def test_every_part_measures_and_writes_its_figures(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    flags = ["--model", str(tiny_folder), "--context", "20", "60", "--json", str(out)]
    assert bench("turns", "batch", "decode", "prefill", "soak", *flags, "--plot", str(plot)) == 0
    tables = {t["name"]: t for t in json.loads(out.read_text())}
    assert set(tables) == {"turns", "batch", "decode", "prefill", "soak"}
    for table in tables.values():
        assert table["rows"]
        for row in table["rows"]:
            assert all(cell >= 0 for cell in row if not isinstance(cell, str))
    layouts = {(row[0], row[1]) for row in tables["turns"]["rows"]}
    assert layouts == {(name, n) for name in ("refresh", "keep", "append") for n in (1, 3)}
    printed = capsys.readouterr().out
    assert "| append | 3 |" in printed
    assert "of the bandwidth" in printed
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_start_is_measured_in_processes_of_its_own(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("start", "--model", str(tiny_folder)) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    seconds = float(row.split("|")[2])
    assert seconds > 0


@pytest.mark.parametrize(
    ("args", "word"), [(("gallop",), "turns"), (("decode", "--shape", "vicuna-1b"), "vicuna-7b")]
)
def test_what_it_does_not_know_it_names(
    args: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*args) == 2
    assert word in capsys.readouterr().err


def test_random_weights_have_the_published_shapes_and_answer() -> None:
    small = SHAPES["vicuna-7b"]
    model = random_model("vicuna-7b", layers=1, vision_layers=1)
    layer = model.weights.language_model.model.layers[0]
    assert layer.mlp.up_proj.weight.shape == (small.feed_forward, small.width)
    assert model.weights.query_tokens.shape == (1, 32, 768)
    assert model.weights.qformer.embeddings.word_embeddings.weight.dtype == torch.float32
    assert layer.mlp.up_proj.weight.dtype == torch.bfloat16
    engine = LocalEngine(model, slots=1, kv_memory=2**27)
    try:
        engine.register_picture("p", picture())
        params = SamplingParams(max_new_tokens=2)
        last = list(engine.submit(Request("r", "Hello?", "p", sampling=params)))[-1]
    finally:
        engine.close()
    assert last.error is None
    assert len(last.answer_ids) == 2


def test_random_weights_are_measured_in_every_kind_and_served_in_the_best(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "small", Shape(256, 512, 1, 4, vision_layers=1))
    small = ["--shape", "small", "--dtype", "bf16"]
    assert bench("batch", "decode", *small, "--context", "20", "30") == 0
    printed = capsys.readouterr().out
    best = "prepacked" if packing(torch.bfloat16) else "wide"
    if not packing(torch.bfloat16) and half_arithmetic(torch.bfloat16):
        best = "as loaded"
    assert f"our weights {best}" in printed
    for kind in {"as loaded", best, "4 bits"}:
        assert f"| {kind} |" in printed


def test_both_sides_of_a_decode_measurement_start_from_the_same_cache(tiny_model) -> None:
    arena, (slot,) = filled(tiny_model, [30])
    cache = their_cache(tiny_model, arena, slot)
    assert cache.get_seq_length() == len(slot.keys) == 30
    assert torch.equal(cache.layers[1].keys[0], arena.keys[1][slot.row, :, :30])
    their_step(tiny_model, cache)
    assert cache.get_seq_length() == 31


def test_transformers_prefill_is_spared_a_copy_of_the_output_layer(tiny_model) -> None:
    seen: list[tuple[int, ...]] = []
    spare_output_copy(tiny_model)
    output = tiny_model.weights.language_model.lm_head
    output.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].stride()))
    _their_prefill(tiny_model, tiny_model.embed(range(5, 30)))
    width = output.in_features
    assert seen == [(width, width, 1)]  # torch folds it into a matrix; a view's it does not


def test_medians_leave_out_the_first_lap_and_alternate(tiny_model) -> None:
    order: list[str] = []
    works = [lambda: order.append("a"), lambda: order.append("b")]
    assert len(Clock(tiny_model).medians(3, *works)) == 2
    assert order == ["a", "b"] * 4


def test_streams_through_the_engine_are_counted_while_all_run(tiny_model) -> None:
    args = argparse.Namespace(context=(200, 240))
    assert _through_engine(tiny_model, 3, args) > 0


def test_the_weights_of_a_token_are_counted_alike_in_onednns_layout(tiny_model) -> None:
    language_model = tiny_model.weights.language_model.bfloat16()
    before = weight_bytes(language_model)
    assert 0 < before < sum(p.nbytes for p in language_model.parameters())
    pack_linears(language_model)
    assert weight_bytes(language_model) == before
