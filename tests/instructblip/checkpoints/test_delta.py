"""``vicuna``: the sum equals FastChat's in every layout, and whatever is wrong leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from fastchat.model import apply_delta as fastchat
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from instructblip import cli
from instructblip.checkpoints.delta import merge_delta
from instructblip.errors import BadRequest, CheckpointError
from tests.tiny import _llm_tokenizer

ROOT = Path(__file__).resolve().parents[3]
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip
Layout = tuple[str, bool]
SINGLE, SHARDED = False, True
LAYOUTS = [
    (("bin", SHARDED), ("bin", SHARDED)),
    (("safetensors", SINGLE), ("bin", SHARDED)),
    (("bin", SINGLE), ("safetensors", SHARDED)),
    (("safetensors", SHARDED), ("safetensors", SINGLE)),
    (("legacy", SINGLE), ("legacy", SHARDED)),
]


def weights(seed: int, scale: float, dtype: torch.dtype, **sizes: object) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**(SIZES | sizes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=scale if parameter.dim() == 1 else 0.0, std=scale)
    return model.to(dtype)


def lay_out(model: LlamaForCausalLM, folder: Path, layout: Layout) -> Path:
    """Save in a layout; ``legacy`` is torch's format before it became a zip."""
    kind, sharded = layout
    model.config.save_pretrained(folder)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    stem = "model" if kind == "safetensors" else "pytorch_model"
    end = "safetensors" if kind == "safetensors" else "bin"
    groups = [list(tensors)[i::3] for i in range(3)] if sharded else [list(tensors)]
    places = {}
    for number, names in enumerate(groups, 1):
        file = f"{stem}-{number:05}-of-00003.{end}" if sharded else f"{stem}.{end}"
        part = {name: tensors[name] for name in names}
        if kind == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file, _use_new_zipfile_serialization=kind != "legacy")
        places |= dict.fromkeys(names, file)
    if sharded:
        index = {"metadata": {}, "weight_map": places}
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))
    return folder


def base_and_delta(
    where: Path,
    layouts: tuple[Layout, Layout] = (("bin", SHARDED), ("bin", SHARDED)),
    dtype: torch.dtype = torch.float16,
    base_sizes: dict[str, object] | None = None,
    delta_sizes: dict[str, object] | None = None,
) -> tuple[Path, Path]:
    """A LLaMA, and differences from it with a tokenizer as transformers 4 saved it."""
    delta = where / "delta"
    delta.mkdir(parents=True)
    words = {"vocab_size": _llm_tokenizer(delta)}
    tokenizer = LlamaTokenizer.from_pretrained(delta)
    tokenizer.save_pretrained(delta)
    base = lay_out(
        weights(1, 1.0, dtype, **(words | (base_sizes or {}))), where / "base", layouts[0]
    )
    lay_out(weights(2, 0.02, torch.float16, **(words | (delta_sizes or {}))), delta, layouts[1])
    return base, delta


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return base_and_delta(tmp_path)


def vicuna(base: Path, delta: Path, target: Path, *more: str) -> int:
    return cli.main([
        "vicuna", "--base-model-path", str(base), "--delta-path", str(delta),
        "--target-model-path", str(target), *more,
    ])  # fmt: skip


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refused(
    base: Path, delta: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 1
) -> str:
    """The command fails in one line that has the words, and leaves everything as it was."""
    where = delta.parent
    before, names = snapshot(where), sorted(p.name for p in where.iterdir())
    assert vicuna(base, delta, where / "vicuna") == code
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(p.name for p in where.iterdir()) == names
    assert snapshot(where) == before
    return error


# --- the sum ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layouts", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_the_sum_is_fastchats_bit_for_bit(
    tmp_path: Path, layouts: tuple[Layout, Layout], dtype: torch.dtype
) -> None:
    base, delta = base_and_delta(tmp_path, layouts, dtype)
    fastchat.apply_delta(str(base), str(tmp_path / "theirs"), str(delta))
    assert vicuna(base, delta, tmp_path / "ours") == 0
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor.view(torch.int16), theirs[name].view(torch.int16)), name


def test_the_sum_is_that_of_fastchats_way_for_low_memory(
    pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # FastChat collects garbage after each tensor, which takes seconds and changes no number.
    monkeypatch.setattr(fastchat, "gc", SimpleNamespace(collect=lambda: None))
    fastchat.apply_delta_low_cpu_mem(str(pair[0]), str(tmp_path / "theirs"), str(pair[1]))
    assert vicuna(*pair, tmp_path / "ours", "--low-cpu-mem") == 0
    theirs: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "theirs").glob("*.bin"):
        theirs |= torch.load(file, weights_only=True)
    for name, tensor in tensors_of(tmp_path / "ours").items():
        assert torch.equal(tensor, theirs[name]), name


def test_many_shards_hold_what_one_holds(pair, tmp_path: Path) -> None:
    base, delta = pair
    merge_delta(base, tmp_path / "one", delta)
    merge = merge_delta(base, tmp_path / "many", delta, shard_bytes=20_000)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) == len(merge.shards) > 3
    biggest = max(t.nbytes for t in tensors_of(tmp_path / "one").values())
    assert max(f.stat().st_size for f in files) < max(20_000, biggest) + 5000
    one, many = (
        LlamaForCausalLM.from_pretrained(tmp_path / n, output_loading_info=True, dtype="auto")
        for n in ("one", "many")
    )
    for model, report in (one, many):
        assert not any(report.values()), report
        assert model.dtype == torch.float16
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, many[0].state_dict()[name]), name


def test_the_deltas_tokenizer_and_configuration_are_kept(pair, tmp_path: Path) -> None:
    base, delta = pair
    (delta / "generation_config.json").write_text('{"pad_token_id": 0}')
    (base / "tokenizer_config.json").write_text('{"of": "the base"}')
    assert vicuna(base, delta, tmp_path / "out") == 0
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (delta / name).read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vocab_size"] == json.loads((delta / "config.json").read_text())["vocab_size"]
    assert "a blue circle" in AutoTokenizer.from_pretrained(tmp_path / "out").decode(
        AutoTokenizer.from_pretrained(delta)("a blue circle").input_ids
    )


def test_a_delta_without_tokenizer_model_gets_llamas(pair, tmp_path: Path, capsys) -> None:
    base, delta = pair
    (delta / "tokenizer.model").rename(tmp_path / "tokenizer.model")
    refused(base, delta, capsys, "tokenizer.model", "cannot be read")
    (tmp_path / "tokenizer.model").rename(base / "tokenizer.model")
    assert vicuna(base, delta, tmp_path / "out") == 0
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == (
        base / "tokenizer.model"
    ).read_bytes()


@pytest.mark.parametrize(
    "flags",
    [
        ("--base-model-path", "--target-model-path", "--delta-path"),
        ("--base_model_path", "--target_model_path", "--delta_path"),
        ("--base", "--target", "--delta"),
    ],
)
def test_fastchats_flags_work_with_progress_in_new_folders(
    pair, tmp_path: Path, capsys, flags: tuple[str, str, str]
) -> None:
    target = tmp_path / "new" / "folders" / "vicuna-7b"
    places = (str(pair[0]), str(target), str(pair[1]))
    call = [word for two in zip(flags, places, strict=True) for word in two]
    assert cli.main(["vicuna", *call, "--low_cpu_mem"]) == 0
    told = capsys.readouterr()
    assert "100%" in told.err
    assert str(target) in told.out
    assert [p.name for p in target.parent.iterdir()] == ["vicuna-7b"]


def test_what_is_doubtful_is_said(tmp_path: Path, capsys) -> None:
    base, _ = base_and_delta(tmp_path / "a", dtype=torch.bfloat16)
    _, delta = base_and_delta(tmp_path / "b")
    assert vicuna(base, delta, tmp_path / "out") == 0
    assert "bfloat16" in capsys.readouterr().err
    (base / "tokenizer.model").write_bytes((delta / "tokenizer.model").read_bytes())
    assert vicuna(base, base, tmp_path / "twice") == 0
    assert "Is it a delta" in capsys.readouterr().err


def test_a_hub_name_is_looked_up_in_the_local_cache_only(
    pair, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    repository = hub / "models--lmsys--tiny-delta"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    pair[1].rename(repository / "snapshots" / ("0" * 40))
    merge_delta(pair[0], tmp_path / "out", "lmsys/tiny-delta")
    assert (tmp_path / "out" / "config.json").is_file()
    assert cli.main(
        ["vicuna", "--base", str(pair[0]), "--delta", "lmsys/other", "--target", "x"]
    ) == 2  # fmt: skip
    assert "hf download lmsys/other" in capsys.readouterr().err


# --- what is refused -------------------------------------------------------------------------------


def test_a_delta_of_version_0_is_refused(tmp_path: Path, capsys) -> None:
    base, delta = base_and_delta(tmp_path, delta_sizes={"vocab_size": 32001})
    refused(base, delta, capsys, "version 0", "32001", "v1.1")


def test_one_more_word_than_the_base_is_version_0(tmp_path: Path, capsys) -> None:
    base, delta = base_and_delta(
        tmp_path, base_sizes={"vocab_size": 400}, delta_sizes={"vocab_size": 401}
    )
    refused(base, delta, capsys, "version 0", "401", "v1.1")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"hidden_size": 40}, ("hidden_size is 40", "32")),
        ({"num_hidden_layers": 2}, ("num_hidden_layers is 2", "3")),
        ({"vocab_size": 999}, ("vocab_size is 999",)),
        ({"rms_norm_eps": 1e-5}, ("rms_norm_eps", "LLaMA 2")),
    ],
)
def test_another_base_is_refused(
    tmp_path: Path, capsys, sizes: dict[str, object], words: tuple[str, ...]
) -> None:
    base, delta = base_and_delta(tmp_path, base_sizes=sizes)
    refused(base, delta, capsys, "not the base", *words)


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_a_target_that_exists_is_refused(pair, tmp_path: Path, capsys, kind: str) -> None:
    target = tmp_path / "vicuna"
    if kind == "file":
        target.write_text("kept")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if kind == "folder":
        (target / "kept.txt").write_text("kept")
    refused(*pair, capsys, "exists already", code=2)


def test_a_target_that_appears_during_the_merge_is_kept(
    pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*args: object, **kwargs: object) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)

    monkeypatch.setattr("instructblip.checkpoints.delta.save_file", save)
    with pytest.raises(BadRequest, match="exists already"):
        merge_delta(*pair[:1], tmp_path / "out", pair[1])
    assert not list(tmp_path.glob(".*"))


def _drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _meta_layout(folder: Path) -> None:
    _drop_config(folder)
    (folder / "consolidated.00.pth").write_bytes(b"x")


def _drop_shard(folder: Path) -> None:
    (folder / "pytorch_model-00002-of-00003.bin").unlink()


def _drop_index_entry(folder: Path) -> None:
    path = folder / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {
        n: f for n, f in index["weight_map"].items() if f != "pytorch_model-00001-of-00003.bin"
    }
    path.write_text(json.dumps(index))


def _break_index(folder: Path) -> None:
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": ')


def _cut(folder: Path) -> None:
    path = folder / "pytorch_model-00003-of-00003.bin"
    path.write_bytes(path.read_bytes()[:-2000])


def _pointer(folder: Path) -> None:
    (folder / "pytorch_model-00001-of-00003.bin").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def _web_page(folder: Path) -> None:
    (folder / "pytorch_model-00001-of-00003.bin").write_text("<!DOCTYPE html><html></html>")


class _Code:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch code-ran",)


def _code(folder: Path) -> None:
    torch.save({"x": _Code()}, folder / "pytorch_model-00001-of-00003.bin")


def _change(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "pytorch_model-00001-of-00003.bin"
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)


def _misshapen(folder: Path) -> None:
    _change(folder, lambda t: t.update({"model.embed_tokens.weight": torch.ones(7, 32)}))


def _unexpected(folder: Path) -> None:
    _change(folder, lambda t: t.update({"model.layers.0.adapter": torch.ones(1)}))


def _lora(folder: Path) -> None:
    _change(folder, lambda t: t.update({"model.layers.0.lora_A": torch.ones(1)}))


def _duplicate(folder: Path) -> None:
    other = torch.load(folder / "pytorch_model-00002-of-00003.bin", weights_only=True)
    _change(folder, lambda t: t.update(other))


def _quantised(folder: Path) -> None:
    _change(folder, lambda t: t.update({k: v.to(torch.int8) for k, v in t.items()}))


def _other_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "opt"}')


@pytest.mark.parametrize(
    ("harm", "words", "code"),
    [
        (_drop_config, ("config.json",), 2),
        (_meta_layout, ("Meta", "convert_llama_weights_to_hf"), 1),
        (_drop_shard, ("00002-of-00003", "1 of 3"), 2),
        (_drop_index_entry, ("missing", "incomplete"), 1),
        (_break_index, ("index.json",), 1),
        (_cut, ("00003-of-00003", "cut short"), 1),
        (_pointer, ("Git LFS",), 1),
        (_web_page, ("web page",), 1),
        (_code, ("code",), 1),
        (_misshapen, ("misshapen", "model.embed_tokens.weight [7, 32]"), 1),
        (_unexpected, ("1 unexpected", "adapter"), 1),
        (_lora, ("LoRA", "lora_A", "merge_and_unload"), 1),
        (_duplicate, ("several downloads",), 1),
        (_quantised, ("quantised", "torch.int8"), 1),
        (_other_model, ("'opt'",), 1),
    ],
)
@pytest.mark.parametrize("side", ["base", "delta"])
def test_a_damaged_folder_is_refused(
    pair, tmp_path: Path, capsys, side: str, harm: Callable[[Path], None], words: tuple[str, ...],
    code: int,
) -> None:  # fmt: skip
    harm(tmp_path / side)
    refused(*pair, capsys, *words, code=code)
    assert not (tmp_path / "code-ran").exists()
    assert not Path("code-ran").exists()


def test_a_configuration_without_sense_is_refused(pair, capsys) -> None:
    path = pair[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": "abacus"}))
    refused(*pair, capsys, 'config.json: hidden_act = "abacus", but one of silu')


@pytest.mark.parametrize("text", ["version https://git-lfs.github.com/spec/v1\n", "junk", ""])
def test_a_tokenizer_that_is_none_is_refused(pair, capsys, text: str) -> None:
    (pair[1] / "tokenizer.model").write_text(text)
    refused(*pair, capsys, "tokenizer.model")


def test_a_sum_that_is_not_finite_is_refused(pair, tmp_path: Path, capsys) -> None:
    _change(pair[0], lambda t: t["model.embed_tokens.weight"].fill_(torch.nan))
    assert vicuna(*pair, tmp_path / "out") == 1
    assert "model.embed_tokens.weight is not finite" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "delta"]


# --- room ------------------------------------------------------------------------------------------


def test_too_little_disk_is_said_before_anything_is_written(
    pair, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    refused(*pair, capsys, "of disk", "are free")


def test_too_little_memory_for_a_file_that_cannot_be_mapped(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, delta = base_and_delta(tmp_path, (("legacy", SINGLE), ("bin", SHARDED)))
    monkeypatch.setattr("instructblip.checkpoints.room.free_memory", lambda: 100_000)
    refused(base, delta, capsys, "pytorch_model.bin, which is no zip, needs", "of memory")


def test_mapped_pages_are_given_back_after_each_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12}
    layouts = ("safetensors", SINGLE), ("bin", SINGLE)
    base, delta = base_and_delta(tmp_path, layouts, base_sizes=sizes, delta_sizes=sizes)
    seen: list[int] = []

    def save(*args: Any, **kwargs: Any) -> None:
        seen.append(psutil.Process().memory_info().shared)
        save_file(*args, **kwargs)

    monkeypatch.setattr("instructblip.checkpoints.delta.save_file", save)
    merge = merge_delta(base, tmp_path / "out", delta, shard_bytes=2_000_000)
    assert len(seen) > 8
    # Both inputs are as large as the sum; all their pages together would be twice its size.
    assert max(seen) - min(seen) < merge.size / 2


# --- ends in the middle ----------------------------------------------------------------------------

# Runs the command, and stops after two of its shards until a signal comes.
STOPPING = """
import sys, time
from instructblip import cli
from instructblip.checkpoints import delta
real, count, limit = delta.save_file, 0, 20_000

def save(*args, **kwargs):
    global count
    real(*args, **kwargs)
    count += 1
    if count == 2:
        print("ready", flush=True)
        time.sleep(300)

plan = delta.plan_merge
delta.plan_merge = lambda base, change, size: plan(base, change, limit)
delta.save_file = save
sys.exit(cli.main(["vicuna", "--base", sys.argv[1], "--delta", sys.argv[2], "--target", sys.argv[3]]))
"""


def stopping(base: Path, delta: Path, target: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING, str(base), str(delta), str(target)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def test_a_killed_run_leaves_the_target_absent_and_a_later_run_works(
    pair, tmp_path: Path, capsys
) -> None:
    target = tmp_path / "out"
    process = stopping(*pair, target)
    try:
        assert not target.exists()
        assert vicuna(*pair, target) == 1
        assert "Another run is writing" in capsys.readouterr().err
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not target.exists()
    assert len(list((tmp_path / ".out.partial").glob("*.safetensors"))) == 2
    assert vicuna(*pair, target) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "delta", "out"]
    assert [f.name for f in target.glob("*.safetensors")] == ["model.safetensors"]
    merge_delta(pair[0], tmp_path / "fresh", pair[1])
    assert snapshot(target) == snapshot(tmp_path / "fresh")


def test_ctrl_c_leaves_nothing(pair, tmp_path: Path) -> None:
    process = stopping(*pair, tmp_path / "new" / "out")
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Traceback" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "delta"]


# A limit on the size of files fails a real write in its middle, as a full disk does.
LIMITED = """
import resource, sys
from instructblip import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(cli.main(["vicuna", "--base", sys.argv[1], "--delta", sys.argv[2], "--target", sys.argv[3]]))
"""


def test_a_write_that_fails_is_one_line_and_leaves_nothing(pair, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, pair), str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: Writing")
    assert "File too large" in last
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "delta"]


def test_a_full_disk_is_named(pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instructblip.checkpoints.delta.save_file", save)
    with pytest.raises(CheckpointError, match=r"No space left on device.*free disk space"):
        merge_delta(pair[0], tmp_path / "out", pair[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "delta"]
