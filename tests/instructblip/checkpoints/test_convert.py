"""convert: whole or not at all, in little memory, with the licence said."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import instructblip
from instructblip import cli
from instructblip.checkpoints import room, shards
from instructblip.checkpoints.assemble import copied
from instructblip.checkpoints.convert import convert
from instructblip.checkpoints.files import index, read_tensors, shard_files
from instructblip.checkpoints.source import open_source
from instructblip.devices import Precision
from instructblip.errors import BadRequest
from tests.instructblip.checkpoints.conftest import DATA
from tests.tiny import make_checkpoint

ROOT = Path(__file__).resolve().parents[3]


def run(code: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_command_says_the_licence_and_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "deep" / "model"
    assert cli.main(["convert", "--model", str(DATA), "--out", str(target), "--dtype", "fp16"]) == 0
    said = capsys.readouterr().out
    assert "non-commercial" in said
    assert f"--model {target}" in said
    assert json.loads((target / "config.json").read_text())["dtype"] == "float16"
    with safe_open(target / "model.safetensors", "pt") as file:
        assert file.get_tensor("language_model.lm_head.weight").dtype == torch.float16
        assert file.get_tensor("qformer.embeddings.layernorm.weight").dtype == torch.float32
    model = instructblip.load(target, device="cpu")
    assert model.properties.default_layout == "refresh"
    assert "non-commercial" in model.properties.licence


def test_a_target_that_exists_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(BadRequest, match="exists already"):
        convert(DATA, tmp_path)
    assert cli.main(["convert", "--model", str(DATA), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["note"]


def test_shards_are_written_as_transformers_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.write_shards, "__kwdefaults__",
                        shards.write_shards.__kwdefaults__ | {"shard_bytes": 800_000})  # fmt: skip
    convert(DATA, tmp_path / "model", dtype="fp16")
    files = shard_files(tmp_path / "model")
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert all(f.stat().st_size < 900_000 for f in files)
    once, again = (
        instructblip.load(m, device="cpu", dtype="fp16") for m in (DATA, tmp_path / "model")
    )
    state = again.weights.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in once.weights.state_dict().items())


def test_every_tensor_begins_where_its_dtype_can_be_mapped(tmp_path: Path) -> None:
    """An odd number of halves before a float would put the float between two of its places."""
    given = {"half": torch.arange(3.0).half(), "qformer.x": torch.arange(2.0)}
    torch.save(given, tmp_path / "w.bin")
    entries = [copied(name, stored) for name, stored in index([tmp_path / "w.bin"]).items()]
    shards.write_shards(tmp_path, entries, Precision(torch.float16))
    data = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["qformer.x"]["data_offsets"][0] % 4 == 0
    found = read_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(found[name], given[name]) for name in given)


@pytest.mark.parametrize("quantize", [None, "int4", "int8"])
def test_tensors_of_whole_cache_lines_begin_at_one(tmp_path: Path, quantize: str | None) -> None:
    make_checkpoint(tmp_path / "plain", width=128)
    convert(tmp_path / "plain", tmp_path / "model", dtype="bf16", quantize=quantize)
    sizes = set()
    for file in shard_files(tmp_path / "model"):
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        header.pop("__metadata__")
        for place in header.values():
            first, end = place["data_offsets"]
            sizes.add((end - first) % 64 == 0)
            assert (end - first) % 64 or (start + first) % 64 == 0
    assert True in sizes
    assert quantize != "int8" or False in sizes  # both kinds are there


def test_a_converted_folder_can_be_converted_to_another_dtype(tmp_path: Path) -> None:
    convert(DATA, tmp_path / "half", dtype="fp16")
    convert(tmp_path / "half", tmp_path / "full", dtype="fp32")
    a, b = (read_tensors(tmp_path / n / "model.safetensors") for n in ("half", "full"))
    assert all(torch.equal(a[n].float(), b[n]) for n in a)
    assert open_source(tmp_path / "full").properties == open_source(tmp_path / "half").properties


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    def stop(tensor: torch.Tensor) -> memoryview:
        raise end

    monkeypatch.setattr(shards, "_bytes", stop)
    with pytest.raises(end):
        convert(DATA, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_target_and_the_next_one_works(tmp_path: Path) -> None:
    killed = run(
        """
        import os, signal, sys
        from pathlib import Path
        from instructblip.checkpoints import shards
        from instructblip.checkpoints.convert import convert

        whole, count = shards._bytes, 0
        def die_later(tensor):
            global count
            count += 1
            if count == 100:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(tensor)
        shards._bytes = die_later
        convert(sys.argv[1], Path(sys.argv[2]))
        """,
        DATA,
        tmp_path / "model",
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    convert(DATA, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    instructblip.load(tmp_path / "model", device="cpu")


def test_a_small_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: full)
    code = cli.main(["convert", "--model", str(DATA), "--out", str(tmp_path / "model")])
    assert code == 1
    assert "of disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write itself fails."""
    ended = run(
        """
        import resource, signal, sys
        from instructblip import cli

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        sys.exit(cli.main(["convert", "--model", sys.argv[1], "--out", sys.argv[2]]))
        """,
        DATA,
        tmp_path / "model",
    )
    assert ended.returncode == 1, ended.stderr
    assert "failed" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for model, code in ((empty, 2), (tmp_path / "nowhere", 2)):
        out = tmp_path / "model"
        assert cli.main(["convert", "--model", str(model), "--out", str(out)]) == code
    command = ["convert", "--model", str(DATA), "--out", str(out), "--dtype", "int9"]
    assert cli.main(command) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_is_one_shard_and_a_tensor(lavis: Path, tmp_path: Path) -> None:
    """A language model of 140 MB in two shards; without streaming both would be held."""
    width, inner, layers = 64, 30_000, 12
    config = json.loads((lavis / "vicuna" / "config.json").read_text())
    (lavis / "vicuna" / "config.json").write_text(
        json.dumps(config | {"intermediate_size": inner, "num_hidden_layers": layers})
    )
    found: dict[str, torch.Tensor] = {}
    for path in sorted((lavis / "vicuna").glob("*.bin")):
        found |= torch.load(path, weights_only=True)
    layer = {k: v for k, v in found.items() if ".layers.0." in k}
    halves: list[dict[str, torch.Tensor]] = [{}, {}]
    for number in range(layers):
        for name, tensor in layer.items():
            shape = [inner if n == 172 else n for n in tensor.shape]
            own = name.replace(".0.", f".{number}.")
            halves[number * 2 // layers][own] = torch.zeros(shape).half()
    halves[0]["model.embed_tokens.weight"] = found["model.embed_tokens.weight"]
    halves[1] |= {k: found[k] for k in ("model.norm.weight", "lm_head.weight")}
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        torch.save(half, lavis / "vicuna" / name)
    places = {k: n for n, half in zip(names, halves, strict=True) for k in half}
    written = json.dumps({"weight_map": places})
    (lavis / "vicuna" / "pytorch_model.bin.index.json").write_text(written)
    largest = max((lavis / "vicuna" / n).stat().st_size for n in names)
    assert largest > 2 * 3 * width * inner * layers / 2  # fp16, three matrices a layer
    ended = run(
        """
        import sys
        from pathlib import Path
        from instructblip.checkpoints.convert import convert

        def memory(kind):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(l.split()[1]) * 1024 for l in lines if l.startswith(kind))

        convert("tests/oracle/data", Path(sys.argv[2]) / "warm", dtype=sys.argv[3])
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        convert(sys.argv[1], Path(sys.argv[2]) / "model", dtype=sys.argv[3])
        print(memory("VmHWM") - before)
        """,
        lavis,
        tmp_path / "out",
        "bf16",
    )
    assert ended.returncode == 0, ended.stderr
    # The interpreter's own ups and downs come to 24 MB; both shards at once would be 2 × largest.
    assert int(ended.stdout) < 1.3 * largest + 24 * 2**20 < 2 * largest
