"""The device layer over the real torch_npu: what is found, chosen, refused, and said about it."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable

import pytest

from tests.npu.build import WHEEL
from tests.npu.simulated import ROOT, Simulated, environment, run

New = Callable[..., Simulated]
CHOOSE = """
import json, logging, sys
said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("instructblip").addHandler(handler)
from instructblip.devices import choose_device
from instructblip.errors import DeviceError
answers = {}
for wish in ("auto", "npu", "npu:1", "cpu"):
    try:
        answers[wish] = str(choose_device(wish))
    except DeviceError as error:
        answers[wish] = f"{error.code}: {error}"
print(json.dumps([answers, said, "torch_npu._C" in sys.modules]))
"""
WITH_MODEL_CODE = (
    "from instructblip.checkpoints import import_model_code\nimport_model_code()\n" + CHOOSE
)


def choose(code: str = CHOOSE, **env: str) -> tuple[dict[str, str], list[str], bool]:
    """What each wish gives in a fresh process, the warnings, and whether torch_npu was loaded."""
    base = {"HOME": "/tmp", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = run(code, **(base | env))
    assert done.returncode == 0, done.stderr
    answers, said, loaded = json.loads(done.stdout.splitlines()[-1])
    return answers, said, loaded


def test_torch_npu_is_not_among_the_packages_of_this_python() -> None:
    assert importlib.util.find_spec("torch_npu") is None


def test_without_cann_torch_itself_fails_and_we_go_on_without_the_npu() -> None:
    path = f"{ROOT}{os.pathsep}{WHEEL}"
    assert "torch_npu" in run("import torch", PATH="/bin", PYTHONPATH=path).stderr
    answers, said, loaded = choose(WITH_MODEL_CODE, PYTHONPATH=path)
    assert (answers["auto"], answers["cpu"], said, loaded) == ("cpu", "cpu", [], False)
    assert answers["npu"].startswith("device_absent: ")
    assert "source launch.sh env" in answers["npu"]


@pytest.mark.parametrize("home", ["/tmp", "/no/such/folder"])
def test_a_broken_cann_is_a_warning_with_the_cure_and_an_error_when_asked_for(home: str) -> None:
    answers, said, loaded = choose(
        WITH_MODEL_CODE, PYTHONPATH=f"{ROOT}{os.pathsep}{WHEEL}", ASCEND_HOME_PATH=home
    )
    assert (answers["auto"], answers["cpu"], loaded) == ("cpu", "cpu", False)
    cure = (
        "torch-npu is installed, and CANN's libraries were not found. "
        "Run `source launch.sh env`, or start with `bash launch.sh`."
    )
    assert said == [f"{cure} Going on without the NPU."]
    assert answers["npu"] == f"device_absent: {cure}"


def test_auto_takes_the_npu_and_a_second_one_is_refused_by_count() -> None:
    answers, said, loaded = choose(**environment())
    assert (answers["auto"], answers["npu"], answers["cpu"]) == ("npu", "npu", "cpu")
    assert answers["npu:1"].startswith("device_absent: ")
    assert "there are 1" in answers["npu:1"]
    assert (said, loaded) == ([], True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("aclrtSetDevice=507033", "could not be started"),
        ("aclrtSetDevice=207004", "ASCEND_RT_VISIBLE_DEVICES"),
    ],
)
def test_an_npu_that_does_not_start_is_told_in_plain_words(fault: str, words: str) -> None:
    answers, said, _ = choose(**environment(faults=fault))
    assert answers["auto"] == "cpu"
    assert len(said) == 1
    assert words in said[0]
    assert words in answers["npu"]


@pytest.mark.parametrize("soc", ["Ascend910B3", "Ascend310P3", "Ascend910A"])
def test_bf16_is_for_chips_that_have_it(soc: str, new_npu: New) -> None:
    chip = new_npu(soc=soc, memory=1 << 30).call("chips.dtypes")
    assert chip["auto"] == "torch.float16"
    if soc == "Ascend910B3":
        assert chip["bf16"] == "torch.bfloat16"
    else:
        assert soc in chip["bf16"]
        assert "--dtype fp16" in chip["bf16"]
    assert chip["settings"] == [True, "disable"]
    assert chip["free"] == 1 << 30
    assert chip["kv"] == int(0.8 * (1 << 30))


def test_a_model_on_the_second_of_two_devices(new_npu: New) -> None:
    said = new_npu(count=2).call("faults.second_device")
    assert said["npu"] == said["cpu"]
    assert (said["device"], said["current"]) == ("npu:1", 1)
    assert said["peaks"][0] == 0
    assert said["peaks"][1] > 1 << 20
