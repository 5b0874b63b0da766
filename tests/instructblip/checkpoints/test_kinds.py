"""Files and folders of another kind, given in every place where a path is taken.

Each is refused by the name of what it is, with what to do; what can be used all the same is.
"""

import gzip
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, InstructBlipProcessor, LlamaTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import instructblip
from instructblip import cli
from instructblip.checkpoints.convert import convert
from tests.instructblip.checkpoints.conftest import DATA, refused, replace
from tests.llamas import base_and_delta, change_json, linked, make_llama, tensors_of

PICTURE = DATA / "images" / "gradient.png"
LAYER = "model.layers.0.mlp.up_proj"
REVISION = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama") / "vicuna-7b")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return base_and_delta(tmp_path_factory.mktemp("pair"))


Say = Callable[[Path], tuple[int, str]]


@pytest.fixture
def places(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Say]:  # fmt: skip
    """Each place that takes a path of a model → the command's exit code, and what it said."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    base, delta = map(str, pair)
    out = str(tmp_path / "out")
    infer = ["infer", "--device", "cpu", "--img_path", str(PICTURE), "--prompt", "x"]
    whole = ["--model", str(DATA)]

    def place(*words: str) -> Say:
        def say(path: Path) -> tuple[int, str]:
            code = cli.main([str(path) if word == "PATH" else word for word in words])
            told = capsys.readouterr()
            assert not Path(out).exists()
            assert "failed inside" not in told.err
            return code, told.out + told.err

        return say

    return {
        "infer --model": place(*infer, "--model", "PATH"),
        "doctor --model": place("doctor", "--device", "cpu", "--model", "PATH"),
        "convert --model": place("convert", "--out", out, "--model", "PATH"),
        "infer --vicuna": place(*infer, *whole, "--vicuna", "PATH"),
        "doctor --vicuna": place("doctor", "--device", "cpu", *whole, "--vicuna", "PATH"),
        "convert --vicuna": place("convert", "--out", out, *whole, "--vicuna", "PATH"),
        "vicuna --base": place("vicuna", "--target", out, "--delta", delta, "--base", "PATH"),
        "vicuna --delta": place("vicuna", "--target", out, "--base", base, "--delta", "PATH"),
        "doctor --bert": place("doctor", "--device", "cpu", *whole, "--bert", "PATH"),
        "doctor --eva": place("doctor", "--device", "cpu", *whole, "--eva", "PATH"),
        "doctor --instruct-blip": place(
            "doctor", "--device", "cpu", *whole, "--instruct-blip", "PATH"
        ),
    }


FOLDERS = [
    "infer --model", "doctor --model", "convert --model", "infer --vicuna", "doctor --vicuna",
    "convert --vicuna", "vicuna --base", "vicuna --delta",
]  # fmt: skip
FILES = [*FOLDERS, "doctor --bert", "doctor --eva", "doctor --instruct-blip"]


# --- folders ---------------------------------------------------------------------------------------


def gptq(folder: Path) -> None:
    tensors = tensors_of(folder)
    whole = tensors.pop(f"{LAYER}.weight")
    tensors |= {
        f"{LAYER}.qweight": torch.zeros(4, whole.shape[0], dtype=torch.int32),
        f"{LAYER}.qzeros": torch.zeros(1, 8, dtype=torch.int32),
        f"{LAYER}.scales": torch.ones(1, whole.shape[0], dtype=torch.float16),
        f"{LAYER}.g_idx": torch.zeros(32, dtype=torch.int32),
    }
    save_file(tensors, folder / "model.safetensors")


def awq(folder: Path) -> None:
    gptq(folder)
    tensors = tensors_of(folder)
    del tensors[f"{LAYER}.g_idx"]
    save_file(tensors, folder / "model.safetensors")


def bitsandbytes_4(folder: Path) -> None:
    tensors = tensors_of(folder)
    name = f"{LAYER}.weight"
    tensors |= {
        name: torch.zeros(tensors[name].numel() // 2, 1, dtype=torch.uint8),
        f"{name}.absmax": torch.ones(32),
        f"{name}.quant_map": torch.ones(16),
        f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(90, dtype=torch.uint8),
    }
    save_file(tensors, folder / "model.safetensors")


def bitsandbytes_8(folder: Path) -> None:
    tensors = tensors_of(folder)
    name = f"{LAYER}.weight"
    tensors |= {name: tensors[name].to(torch.int8), f"{LAYER}.SCB": torch.ones(64)}
    save_file(tensors, folder / "model.safetensors")


def says(**quantization: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", quantization_config=quantization)


def beside(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text('{"bits": 4}') and None


def without(folder: Path, *keep: str) -> None:
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink()


def gguf(folder: Path) -> None:
    without(folder)
    (folder / "vicuna-7b-v1.1.Q4_K_M.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(100))


def gguf_with_config(folder: Path) -> None:
    without(folder, "config.json", "tokenizer.model")
    (folder / "ggml-model-q4_0.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(100))


def lora(folder: Path) -> None:
    without(folder, "tokenizer.model")
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "lmsys/vicuna-7b-v1.1", "peft_type": "LORA"})
    )
    save_file({f"base_model.model.{LAYER}.lora_A.weight": torch.ones(2, 32)},
              folder / "adapter_model.safetensors")  # fmt: skip


def lora_with_config(folder: Path) -> None:
    config = (folder / "config.json").read_text()
    lora(folder)
    (folder / "config.json").write_text(config)


def lora_tensors(folder: Path) -> None:
    save_file(
        {f"base_model.model.{LAYER}.lora_A.weight": torch.ones(2, 32)},
        folder / "model.safetensors",
    )


def hub_cache(folder: Path) -> None:
    without(folder)
    for name in ("models--lmsys--vicuna-7b-v1.1", "models--Salesforce--blip"):
        (folder / name / "snapshots").mkdir(parents=True)


def empty_hub_top(folder: Path) -> None:
    without(folder)
    for name in ("snapshots", "refs", "blobs"):
        (folder / name).mkdir()
    (folder / "refs" / "main").write_text(REVISION)


def two_snapshots(folder: Path) -> None:
    without(folder)
    for name in ("snapshots/a" * 1, "snapshots/b", "blobs"):
        (folder / name).mkdir(parents=True)


def meta(folder: Path) -> None:
    without(folder, "tokenizer.model")
    (folder / "consolidated.00.pth").write_bytes(b"x")
    (folder / "params.json").write_text("{}")


def tensorflow(folder: Path) -> None:
    without(folder, "config.json", "tokenizer.model")
    (folder / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")


def flax(folder: Path) -> None:
    without(folder, "config.json")
    (folder / "flax_model.msgpack").write_bytes(b"x")


def onnx(folder: Path) -> None:
    without(folder, "config.json")
    (folder / "model.onnx").write_bytes(b"x")


def deepspeed(folder: Path) -> None:
    without(folder)
    (folder / "zero_to_fp32.py").write_text("")
    (folder / "global_step100").mkdir()


def unfinished(folder: Path) -> None:
    without(folder, "config.json", "tokenizer.model")
    (folder / "model.safetensors.incomplete").write_bytes(b"x")


def renamed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "vicuna.safetensors")


def tokenizer_alone(folder: Path) -> None:
    without(folder, "tokenizer.model")


def processor_alone(folder: Path) -> None:
    without(folder)
    save_processor(folder)


def save_processor(folder: Path) -> None:
    """As ``processor.save_pretrained`` of transformers 5 does it: without tokenizer.model."""
    words = make_llama(folder.parent / "words")
    bert = AutoTokenizer.from_pretrained(DATA / "bert")
    InstructBlipProcessor(
        BlipImageProcessorPil(), LlamaTokenizer.from_pretrained(words), bert, num_query_tokens=4
    ).save_pretrained(folder)


def tokenizer_of_transformers_5(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()
    save_processor(folder)


NO_FOLDERS = {
    "GPTQ": (gptq, "GPTQ"),
    "GPTQ by its config": (says(quant_method="gptq", bits=4), "GPTQ"),
    "GPTQ by AutoGPTQ's own file": (beside("quantize_config.json"), "GPTQ"),
    "AWQ": (awq, "AWQ"),
    "AWQ by its config": (says(quant_method="awq"), "AWQ"),
    "AWQ by its own file": (beside("quant_config.json"), "AWQ"),
    "bitsandbytes, 4 bits": (bitsandbytes_4, "bitsandbytes"),
    "bitsandbytes, 8 bits": (bitsandbytes_8, "bitsandbytes"),
    "bitsandbytes by its config": (says(quant_method="bitsandbytes"), "bitsandbytes"),
    "bitsandbytes by an old config": (says(load_in_8bit=True), "bitsandbytes"),
    "another method": (says(quant_method="hqq"), "'hqq'"),
    "GGUF": (gguf, "GGUF"),
    "GGUF beside a config": (gguf_with_config, "GGUF"),
    "LoRA": (lora, "LoRA adapter for lmsys/vicuna-7b-v1.1"),
    "LoRA beside a config": (lora_with_config, "LoRA adapter"),
    "a whole hub cache": (hub_cache, "cache of 2 models"),
    "a hub cache without its snapshot": (empty_hub_top, "which is not in snapshots"),
    "a hub cache of two snapshots": (two_snapshots, "2 snapshots and no refs/main"),
    "Meta's layout": (meta, "Meta packs it"),
    "TensorFlow": (tensorflow, "TensorFlow"),
    "Flax": (flax, "Flax"),
    "ONNX": (onnx, "ONNX"),
    "DeepSpeed's parts": (deepspeed, "zero_to_fp32"),
    "a download that did not end": (unfinished, "did not end"),
    "weights under another name": (renamed, "vicuna.safetensors"),
    "a tokenizer alone": (tokenizer_alone, "tokenizer alone"),
    "a processor alone": (processor_alone, "processor alone"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_FOLDERS)
def test_a_folder_of_another_kind_is_named_in_every_place(
    llama: Path, tmp_path: Path, places: dict[str, Say], kind: str
) -> None:
    make, word = NO_FOLDERS[kind]
    folder = shutil.copytree(llama, tmp_path / "given" / "vicuna-7b")
    make(folder)
    for name in FOLDERS:
        code, said = places[name](folder)
        assert code in (1, 2), name
        assert word in said, (name, said)
        assert str(folder) in said, name
        assert said.count(". ") >= 1, name  # what to do


def test_lora_tensors_under_the_usual_name_are_named(
    llama: Path, tmp_path: Path, places: dict[str, Say]
) -> None:
    folder = shutil.copytree(llama, tmp_path / "vicuna-7b")
    lora_tensors(folder)
    for name in ("doctor --vicuna", "vicuna --base", "vicuna --delta"):
        code, said = places[name](folder)
        assert code == 1
        assert "LoRA adapter's tensors" in said
        assert "merge_and_unload" in said


def test_a_folder_without_tokenizer_model_says_which_program_saves_so(
    llama: Path, tiny_folder: Path, tmp_path: Path, places: dict[str, Say]
) -> None:
    language = shutil.copytree(llama, tmp_path / "vicuna-7b")
    whole = shutil.copytree(tiny_folder, tmp_path / "whole")
    (whole / "tokenizer.model").unlink()
    (language / "tokenizer.model").unlink()
    for folder, names in ((whole, FOLDERS[:3]), (language, ["doctor --vicuna", "infer --vicuna"])):
        save_processor(folder)
        assert not (folder / "tokenizer.model").exists()
        for name in names:
            code, said = places[name](folder)
            assert code == 1
            assert f"{folder / 'tokenizer.model'} is not there, only tokenizer.json is" in said
            assert "transformers 5 saves" in said
            assert "Copy tokenizer.model from the Vicuna" in said


@pytest.mark.parametrize("part", ["", "text_config"])
def test_a_quantised_instructblip_is_named(
    tiny_folder: Path, tmp_path: Path, places: dict[str, Say], part: str
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[part] if part else config)["quantization_config"] = {"quant_method": "gptq"}
    path.write_text(json.dumps(config))
    for name in FOLDERS[:3]:
        code, said = places[name](folder)
        assert code == 1
        assert "GPTQ" in said
        assert "convert --quantize int4" in said


def test_our_own_quantised_folders_load(tmp_path: Path) -> None:
    convert(DATA, tmp_path / "int8", dtype="fp16", quantize="int8")
    assert instructblip.load(tmp_path / "int8", device="cpu") is not None


def test_a_folder_one_level_up_is_said(
    tiny_folder: Path, tmp_path: Path, places: dict[str, Say]
) -> None:
    above = tmp_path / "above"
    linked(tiny_folder, above / "instructblip")
    code, said = places["doctor --model"](above)
    assert code == 1
    assert str(above / "instructblip") in said


def test_a_config_that_says_no_model_is_named(
    tiny_folder: Path, tmp_path: Path, places: dict[str, Say]
) -> None:
    folder = linked(tiny_folder, tmp_path / "model")
    (folder / "config.json").unlink()
    (folder / "config.json").write_text('{"hidden_size": 3}')
    code, said = places["doctor --model"](folder)
    assert code == 1
    assert f"{folder / 'config.json'}: model_type = null" in said


# --- float64 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["vicuna --base", "vicuna --delta"])
def test_a_base_in_float64_is_named(
    pair: tuple[Path, Path], tmp_path: Path, places: dict[str, Say], side: str
) -> None:
    folder = shutil.copytree(pair["--base" not in side], tmp_path / "double")
    double = {name: tensor.double() for name, tensor in tensors_of(folder).items()}
    save_file(double, folder / "model.safetensors")
    code, said = places[side](folder)
    assert code == 1
    assert f"{folder} is stored in float64" in said
    assert "save it in float16" in said
    assert "quantised" not in said


# --- files -----------------------------------------------------------------------------------------


def a_gguf(path: Path) -> Path:
    path = path.with_suffix(".gguf")
    path.write_bytes(b"GGUF\3\0\0\0" + bytes(600))
    return path


def a_gguf_under_another_name(path: Path) -> Path:
    path = path.with_suffix(".bin")
    path.write_bytes(b"GGUF\3\0\0\0" + bytes(600))
    return path


def old_ggml(path: Path) -> Path:
    path = path.with_suffix(".bin")
    path.write_bytes(b"tjgg\3\0\0\0" + bytes(600))
    return path


def a_zip(path: Path) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vicuna-7b/config.json", "{}")
    return path


def a_tar(path: Path) -> Path:
    inside = path.with_suffix(".txt")
    inside.write_text("x")
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        archive.add(inside, "vicuna-7b/config.json")
    return path.with_suffix(".tar")


def a_gz(path: Path) -> Path:
    path = path.with_suffix(".tar.gz")
    path.write_bytes(gzip.compress(b"x"))
    return path


def hdf5(path: Path) -> Path:
    path = path.with_suffix(".h5")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return path


NO_FILES = {
    "GGUF": (a_gguf, "GGUF"),
    "GGUF named .bin": (a_gguf_under_another_name, "GGUF"),
    "GGML": (old_ggml, "GGML"),
    "tar": (a_tar, "archive"),
    "gz": (a_gz, "archive"),
    "HDF5": (hdf5, "HDF5"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_file_of_another_kind_is_named_in_every_place(
    tmp_path: Path, places: dict[str, Say], kind: str
) -> None:
    make, word = NO_FILES[kind]
    path = make(tmp_path / "vicuna-7b")
    for name in FILES:
        code, said = places[name](path)
        assert code in (1, 2), name
        assert str(path) in said, (name, said)
        assert word in said, (name, said)


def test_a_zip_is_named_where_a_folder_is_wanted(tmp_path: Path, places: dict[str, Say]) -> None:
    path = a_zip(tmp_path / "vicuna-7b")
    for name in FOLDERS:
        assert "is an archive. Unpack it" in places[name](path)[1], name


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model"])
def test_one_file_of_a_folder_is_told_to_be_one(
    llama: Path, places: dict[str, Say], name: str
) -> None:
    for place in (*FOLDERS, "doctor --bert"):
        code, said = places[place](llama / name)
        assert code == 1, place
        assert "is one file of a model" in said, (place, said)
        assert str(llama) in said


def test_one_file_of_an_instructblip_is_told_to_be_one(
    tiny_folder: Path, places: dict[str, Say]
) -> None:
    for place in FOLDERS[:3]:
        code, said = places[place](tiny_folder / "model.safetensors")
        assert code == 1
        assert f"Give the folder in which all of them lie: {tiny_folder}" in said


def test_the_trimmed_file_itself_is_a_model_as_before() -> None:
    instructblip.load(DATA / "instruct_blip_trimmed.pth", device="cpu")


@pytest.mark.parametrize("place", ["doctor --eva", "doctor --instruct-blip"])
def test_a_folder_in_the_place_of_a_file_is_told(places: dict[str, Say], place: str) -> None:
    code, said = places[place](DATA)
    assert code == 1
    assert "is a folder. Give the file in it: it holds eva_vit_g.pth, instruct_blip" in said


def test_files_that_changed_their_ending_are_told(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "vicuna-7b")
    tensors = tensors_of(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "safetensors under another name" in refused(DATA, vicuna=folder)
    (folder / "pytorch_model.bin").unlink()
    torch.save(tensors, folder / "model.safetensors")
    assert "torch file under another name" in refused(DATA, vicuna=folder)


# --- what is used all the same ---------------------------------------------------------------------

PREFIXES = ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.",
            "_fsdp_wrapped_module."]  # fmt: skip


def prefixed(folder: Path, prefix: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    made = {prefix + name: tensor.clone() for name, tensor in tensors.items()}
    (folder / "model.safetensors").unlink()
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_an_instructblip_are_taken_out(
    tiny_folder: Path, tmp_path: Path, prefix: str
) -> None:
    folder = linked(tiny_folder, tmp_path / "model")
    prefixed(folder, prefix)
    found, plain = (
        instructblip.load(f, device="cpu", dtype="fp32").weights.state_dict()
        for f in (folder, tiny_folder)
    )
    assert same(found, plain)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_laviss_files_are_taken_out(lavis: Path, prefix: str) -> None:
    plain = instructblip.load(lavis, device="cpu", dtype="fp32").weights.state_dict()
    for path in (*lavis.glob("*.pth"), *(lavis / "vicuna").glob("*.bin")):
        found = torch.load(path, weights_only=True)
        tensors = found.get("model", found)
        replace(path, {"model": {prefix + name: t for name, t in tensors.items()}})
    assert same(instructblip.load(lavis, device="cpu", dtype="fp32").weights.state_dict(), plain)


def test_a_compiled_part_inside_is_taken_out(lavis: Path) -> None:
    plain = instructblip.load(lavis, device="cpu", dtype="fp32").weights.state_dict()
    path = lavis / "instruct_blip_trimmed.pth"
    tensors = torch.load(path, weights_only=True)["model"]
    replace(path, {"model": {n.replace("Qformer.", "Qformer._orig_mod."): t
                             for n, t in tensors.items()}})  # fmt: skip
    assert same(instructblip.load(lavis, device="cpu", dtype="fp32").weights.state_dict(), plain)


@pytest.mark.parametrize("prefix", PREFIXES[:2])
def test_prefixes_in_a_merge_are_taken_out(
    pair: tuple[Path, Path], tmp_path: Path, prefix: str
) -> None:
    sums = []
    for name, sides in (("plain", ()), ("prefixed", (0, 1))):
        both = [linked(side, tmp_path / name / side.name) for side in pair]
        for side in sides:
            prefixed(both[side], prefix)
        flags = ["--base", str(both[0]), "--delta", str(both[1])]
        assert cli.main(["vicuna", *flags, "--target", str(tmp_path / name / "out")]) == 0
        sums.append(load_file(tmp_path / name / "out" / "model.safetensors"))
    assert same(*sums)


def test_two_tensors_of_one_name_keep_theirs(tiny_folder: Path, tmp_path: Path) -> None:
    folder = linked(tiny_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors | {"module.query_tokens": torch.zeros(1)}, folder / "model.safetensors")
    assert "1 unexpected (module.query_tokens)" in refused(folder)


def hub_top(folder: Path, where: Path, name: str, main: bool = True, more: bool = False) -> Path:
    """A hub cache's folder of one model, with the files as links into ``blobs``."""
    top = where / f"models--{name.replace('/', '--')}"
    for inner in ("refs", "blobs", f"snapshots/{REVISION}"):
        (top / inner).mkdir(parents=True)
    for file in folder.rglob("*"):
        if file.is_file():
            link = top / "snapshots" / REVISION / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            blob = shutil.copy(file, top / "blobs" / f"{len(list((top / 'blobs').iterdir()))}")
            link.symlink_to(blob)
    if main:
        (top / "refs" / "main").write_text(REVISION)
    if more:
        (top / "snapshots" / ("9" * 40)).mkdir()
    return top


@pytest.mark.parametrize(("main", "more"), [(True, False), (True, True), (False, False)])
def test_the_top_of_a_hub_cache_stands_for_its_snapshot(
    tiny_folder: Path, llama: Path, pair: tuple[Path, Path], tmp_path: Path, main: bool, more: bool
) -> None:
    whole = hub_top(tiny_folder, tmp_path, "Salesforce/instructblip-vicuna-7b", main, more)
    for path in (whole, whole / "snapshots", whole / "refs"):
        assert cli.main(["doctor", "--device", "cpu", "--model", str(path)]) == 0
    instructblip.load(whole, device="cpu")
    bases = [hub_top(side, tmp_path, f"x/{side.name}", main, more) for side in pair]
    out = str(tmp_path / "vicuna")
    flags = ["--base", str(bases[0]), "--delta", str(bases[1]), "--target", out]
    assert cli.main(["vicuna", *flags]) == 0


def test_parts_of_laviss_layout_may_be_tops_of_a_hub_cache(lavis: Path, tmp_path: Path) -> None:
    plain = instructblip.load(lavis, device="cpu", dtype="fp32").weights.state_dict()
    tops = {part: hub_top(lavis / part, tmp_path, f"x/{part}") for part in ("vicuna", "bert")}
    found = instructblip.load(lavis, device="cpu", dtype="fp32", **tops)
    assert same(found.weights.state_dict(), plain)
    for part, top in tops.items():  # and where a link in the folder leads there
        shutil.rmtree(lavis / part)
        (lavis / part).symlink_to(top)
    found = instructblip.load(lavis, device="cpu", dtype="fp32")
    assert same(found.weights.state_dict(), plain)


def test_a_part_may_be_a_hub_name_of_the_local_cache(
    lavis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    hub_top(lavis / "vicuna", tmp_path / "hub", "lmsys/vicuna-7b-v1.1")
    instructblip.load(lavis, device="cpu", vicuna="lmsys/vicuna-7b-v1.1")
    assert "hf download lmsys/other" in refused(lavis, vicuna="lmsys/other")  # type: ignore[arg-type]
