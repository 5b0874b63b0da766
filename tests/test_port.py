"""The README's table for users of the Ascend port: each line is followed, on tiny weights.

The folder is laid out as the port's README says, with LLaMA and Vicuna's delta in it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from instructblip import cli
from tests.hub import hub
from tests.launch.conftest import Tree
from tests.tiny import picture

ROOT = Path(__file__).resolve().parents[1]
LAVIS = ROOT / "tests" / "oracle" / "data"
CERTIFICATE = ROOT / "tests" / "localhost.pem"
HUB_NAME = "Salesforce/instructblip-vicuna-7b"
# What users of the port typed or kept, in its order.
STEPS = (
    "pip3 install -r requirements.txt", "python setup.py install",
    "python -m fastchat.model.apply_delta", "instruct_blip_vicuna7b_trimmed.pth",
    "source ./test/env_npu.sh", "python infer.py --img_path X --prompt Y",
    "bash test/run_infer_full_1p.sh", "first FAQ entry", "second FAQ entry",
)  # fmt: skip


def table() -> list[tuple[str, list[str]]]:
    """The port's step, and the commands here, of each line."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"<!-- port -->(.*?)<!-- end -->", text, re.DOTALL)
    assert found
    lines = [
        line.strip("| ").split(" | ") for line in found[1].splitlines() if line.startswith("|")
    ]
    return [(step, re.findall(r"`([^`]*launch\.sh[^`]*)`", here)) for step, here in lines[2:]]


def test_no_step_of_the_port_is_left_out() -> None:
    steps = [step for step, _ in table()]
    assert len(steps) == len(STEPS)
    for step, words in zip(steps, STEPS, strict=True):
        assert words in step


class Place:
    """The port user's folder, pictures, and what the words in capitals stand for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder / "port", Tree(folder / "machine")
        self.tree.python()
        self.pictures, self.answers = folder / "pictures", folder / "answers.jsonl"
        self.pictures.mkdir()
        for name, colour in (("a.png", (200, 30, 30)), ("b.png", (30, 200, 30))):
            (self.pictures / name).write_bytes(picture(colour))
        lay_out(self.folder)
        self.converted: list[Path] = []

    def words(self, command: str, **more: str) -> list[str]:
        """The command's words with the reader's own things in place."""
        if "CONVERTED" in command:
            self.converted.append(self.folder.parent / f"converted{len(self.converted)}")
        values = {
            "FOLDER": str(self.folder), "PICTURE": str(self.pictures / "a.png"),
            "PICTURES": str(self.pictures), "PROMPT": "what is in the picture",
            "CONVERTED": str(self.converted[-1]) if self.converted else "", "CA.pem": str(CERTIFICATE),
            "answers.jsonl": str(self.answers), **more,
        }  # fmt: skip
        return [values.get(word, word) for word in shlex.split(command)]


def lay_out(folder: Path) -> None:
    """LAVIS's layout from the reference weights; Vicuna is still LLaMA and delta."""
    folder.mkdir()
    shutil.copytree(LAVIS / "bert", folder / "bert-base-uncased")
    shutil.copy(LAVIS / "eva_vit_g.pth", folder)
    shutil.copy(LAVIS / "config.json", folder)
    shutil.copy(LAVIS / "instruct_blip_trimmed.pth", folder / "instruct_blip_vicuna7b_trimmed.pth")
    base, delta = folder / "llama-7b", folder / "vicuna-7b-delta-v1.1"
    shutil.copytree(LAVIS / "vicuna", delta)
    shutil.copytree(LAVIS / "vicuna", base, ignore=shutil.ignore_patterns("*.bin*"))
    tensors: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    for file in sorted(delta.glob("*.bin")):
        merged = torch.load(file, weights_only=True)
        below = {name: torch.randn_like(value) * 0.01 for name, value in merged.items()}
        torch.save({name: value - below[name] for name, value in merged.items()}, file)
        tensors |= below
    save_file(tensors, base / "model.safetensors", {"format": "pt"})


def module_arguments(tree: Tree, words: list[str]) -> list[str]:
    """What ``bash launch.sh …`` hands to Python, on a made-up machine."""
    assert words[:2] == ["bash", "launch.sh"]
    done = tree.launch(*words[2:])
    assert done.returncode == 0, done.stderr
    calls = re.findall(r"^<-P><-m><(.*)>$", done.stdout, re.MULTILINE)
    return calls[-1].split("><") if calls else []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.chdir(made.folder)
    return made


def test_line_by_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """In the table's order: what one line makes, the next ones use."""
    done = 0
    for step, commands in table():
        for command in commands:
            done += 1
            if command.startswith("source "):
                follow_source(place.tree, command)
            elif not command.startswith("bash "):
                follow_hub(place, command)
            elif "MODELSCOPE" in command:
                folder = modelscope(place)
                words = place.words(command, MODELSCOPE=str(folder))
                follow(place, words, capsys)
            else:
                follow(place, place.words(command), capsys)
        assert commands or "setup.py" in step
    assert done == 9
    assert (place.folder / "vicuna-7b").is_dir()
    lines = [json.loads(line) for line in place.answers.read_text("utf-8").splitlines()]
    assert [Path(line["img_path"]).name for line in lines] == ["a.png", "b.png"]
    assert {line["generation"] for line in lines} == {"LAVIS"}


def follow(place: Place, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A ``bash launch.sh …``: through launch.sh, then for real."""
    arguments = module_arguments(place.tree, words)
    if words[2] == "install":
        assert place.tree.installs()
        assert arguments == []
        return
    assert arguments[:2] == ["instructblip", words[2]]
    capsys.readouterr()
    assert cli.main([*arguments[1:], *cpu(words[2])]) == 0, (words, capsys.readouterr().err)
    said = capsys.readouterr()
    if words[2] == "convert":
        assert (place.converted[-1] / "config.json").is_file()
        assert "non-commercial" in said.out  # the licence of the weights
    elif words[2] == "infer" and "--out" not in words:
        assert said.out.strip()


def cpu(command: str) -> list[str]:
    """The reference's precision, so that a test machine's device does not matter."""
    return ["--device", "cpu", "--dtype", "fp32"] if command == "infer" else []


def follow_source(tree: Tree, command: str) -> None:
    script = command.replace("launch.sh", shlex.quote(str(tree.root / "launch.sh")))
    tree.device("/dev/davinci0")
    cann = tree.machine / "usr/local/Ascend/ascend-toolkit/set_env.sh"
    cann.parent.mkdir(parents=True)
    cann.write_text(f"export ASCEND_HOME_PATH={cann.parent}\n")
    done = subprocess.run(
        [str(tree.bin / "bash"), "-c", f"{script}; echo $ASCEND_HOME_PATH $TASK_QUEUE_ENABLE"],
        env=tree.environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == [str(cann.parent), "2"]
    shutil.rmtree(cann.parent)
    (tree.machine / "dev/davinci0").unlink()


def modelscope(place: Place) -> Path:
    """A folder as ModelScope's tool leaves it: the hub's files and a few of its own."""
    folder = place.folder.parent / "modelscope" / "hub" / "models" / "Salesforce" / "x"
    shutil.copytree(place.converted[0], folder)
    for name in (".msc", ".mv", "configuration.json", "README.md"):
        (folder / name).write_text("{}")
    return folder


def follow_hub(place: Place, command: str) -> None:
    """A command that begins with variables: fetched from a stand-in hub, over TLS where it says so."""
    words = place.words(command)
    given = dict(word.split("=", 1) for word in words[: words.index("bash")])
    words = words[words.index("bash") :]
    assert module_arguments(place.tree, words)[:2] == ["instructblip", "convert"]
    tls = "SSL_CERT_FILE" in given
    certificate = CERTIFICATE if tls else None
    with hub(place.converted[0], HUB_NAME, certificate) as address:
        if tls:  # the hub's own address cannot be taken over here
            given["HF_ENDPOINT"] = address
            given["SSL_CERT_FILE"] = str(CERTIFICATE)
            bare = {k: v for k, v in given.items() if k != "SSL_CERT_FILE"}
            refused = fetch(place, words, bare)
            assert refused.returncode != 0
            assert "certificate" in refused.stderr.lower()
            assert len([x for x in refused.stderr.splitlines() if x.startswith("error: ")]) == 1
            assert not place.converted[-1].exists()
        else:
            assert given["HF_ENDPOINT"].startswith("https://")
            given["HF_ENDPOINT"] = address
        done = fetch(place, words, given)
    assert done.returncode == 0, done.stderr
    assert (place.converted[-1] / "config.json").is_file()


def fetch(
    place: Place, words: list[str], given: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with an empty hub cache."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HF_ENDPOINT", "HF_HUB_OFFLINE", "REQUESTS_CA_BUNDLE")
    clean = {k: v for k, v in os.environ.items() if k not in names and "proxy" not in k.lower()}
    home = place.folder.parent / f"hub{len(place.converted)}"
    return subprocess.run(
        [sys.executable, "-m", "instructblip", *words[2:]], cwd=place.folder, text=True,
        env={**clean, "PYTHONPATH": str(ROOT), "HF_HOME": str(home), **given},
        capture_output=True, timeout=120,
    )  # fmt: skip


def test_the_hub_is_not_asked_unless_it_is_named(place: Place) -> None:
    """launch.sh itself keeps the hub offline; HF_HUB_OFFLINE=0 in front of it wins."""
    shown = place.tree.launch("convert", "--model", HUB_NAME).stdout
    assert "offline=1" in shown
    shown = place.tree.launch("convert", environment={"HF_HUB_OFFLINE": "0"}).stdout
    assert "offline=0" in shown


def test_a_whole_folder_tree_of_a_port_user_is_understood(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the merge: neither LLaMA nor the delta is taken for Vicuna."""
    call = ["infer", "--model", str(place.folder), "--img_path", str(place.pictures / "a.png")]
    assert cli.main([*call, "--prompt", "what", *cpu("infer")]) != 0
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "vicuna" in error.lower()


def test_the_answers_are_those_of_lavis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each single picture of the reference set in one list: text for text what LAVIS said."""
    expected = json.loads((LAVIS / "expected.json").read_text("utf-8"))["cases"]
    cases = [c for c in expected if len(c["images"]) == 1 and c["prompts"][0].strip()]
    rows = [
        {"img_path": str(LAVIS / "images" / c["images"][0]), "prompt": c["prompts"][0]}
        for c in cases
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out = tmp_path / "answers.csv"
    call = ["infer", "--model", str(LAVIS), "--img_path", str(tmp_path / "list.jsonl")]
    assert cli.main([*call, "--out", str(out), *cpu("infer")]) == 0, capsys.readouterr().err
    with open(out, encoding="utf-8", newline="") as file:
        answers = [(row["prompt"], row["answer"]) for row in csv.DictReader(file)]
    assert answers == [
        (c["prompts"][0], c["generate"]["lavis_default_beam5"]["text"][0]) for c in cases
    ]
    assert len(answers) >= 6
