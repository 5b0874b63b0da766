"""Which torch launch.sh installs, from where, and what it says before it downloads."""

import subprocess

import pytest

from tests.launch.conftest import Tree

GPU = "GPU 0: NVIDIA H100 (UUID: GPU-0)"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def constraints(tree: Tree) -> list[str]:
    return (tree.venv / "constraints.txt").read_text().splitlines()


def test_a_machine_without_an_accelerator(tree: Tree) -> None:
    done = tree.launch()
    assert "(torch: cpu). To download: about 0.4 GB; on disk: about 2500 MB." in done.stderr
    assert "torch==2.13.0" in constraints(tree)
    assert "requirements.txt" in tree.installs()[-1]


def test_a_gpu_is_seen_by_its_tool(tree: Tree) -> None:
    tree.program("nvidia-smi", f"echo '{GPU}'")
    done = tree.launch()
    assert "(torch: cuda). To download: about 3.5 GB; on disk: about 9000 MB." in done.stderr
    assert "torch==2.13.0" in constraints(tree)


def test_a_gpu_is_seen_by_its_device(tree: Tree) -> None:
    tree.device("/dev/nvidia0")
    assert "(torch: cuda)" in tree.launch().stderr


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'"])
def test_a_driver_without_a_gpu_is_none(tree: Tree, script: str) -> None:
    tree.program("nvidia-smi", script)
    tree.device("/dev/nvidiactl")
    assert "(torch: cpu)" in tree.launch().stderr


def test_the_npus_manager_alone_is_no_npu(tree: Tree) -> None:
    tree.device("/dev/davinci_manager")
    assert "(torch: cpu)" in tree.launch().stderr


@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_what_was_asked_for_wins(tree: Tree, flavour: str) -> None:
    tree.device("/dev/davinci0")
    tree.program("nvidia-smi", f"echo '{GPU}'")
    assert f"(torch: {flavour})" in tree.launch("--torch", flavour).stderr


def test_the_size_is_said_before_the_first_package(tree: Tree) -> None:
    waits = tree.answer("pip-waits")
    started = subprocess.Popen(
        tree.command(), env=tree.environment(), cwd=tree.home, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert started.stderr is not None
    assert "To download: about 0.4 GB" in started.stderr.readline()
    assert not (tree.venv / ".stamp").exists()
    waits.unlink()
    _, rest = started.communicate(timeout=120)
    assert started.returncode == 0
    assert "Installed in " in rest


def test_torch_for_the_cpu_comes_from_its_own_index(tree: Tree) -> None:
    tree.answer("reachable")
    tree.launch()
    assert tree.calls(f"- {CPU_INDEX}/torch/")
    first, second = tree.installs()
    assert f"--no-deps --index-url {CPU_INDEX} torch==2.13.0" in first
    assert "--index-url" not in second


@pytest.mark.parametrize(
    "variable", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"]
)
def test_an_own_index_serves_everything(tree: Tree, variable: str) -> None:
    tree.answer("reachable")
    tree.launch(environment={variable: "x"})
    assert len(tree.installs()) == 1
    assert tree.calls(CPU_INDEX) == []  # nobody else is asked


def test_an_own_index_in_pips_own_file(tree: Tree) -> None:
    tree.answer("reachable")
    tree.answer("pip-config", "global.index-url='https://mirror/simple'")
    tree.launch()
    assert len(tree.installs()) == 1
    assert tree.calls(CPU_INDEX) == []


def test_an_index_for_torch_alone(tree: Tree) -> None:
    tree.launch("--torch", "cuda", environment={"INSTRUCTBLIP_TORCH_INDEX": "https://own/cu"})
    assert "--index-url https://own/cu torch==2.13.0" in tree.installs()[0]


def test_the_torch_of_a_named_python_is_kept(tree: Tree) -> None:
    python = tree.python("conda-python")
    tree.answer("torch", "2.9.1+cu128")
    tree.answer("given-site", "/opt/conda/site-packages")
    done = tree.launch("--python", "conda-python")
    assert done.returncode == 0, done.stderr
    assert f"torch 2.9.1+cu128 of {python} is used as it is" in done.stderr
    assert "(torch: keep). To download: about 0.2 GB" in done.stderr
    assert "--system-site-packages" in tree.calls("-m venv")[0]
    assert constraints(tree) == ["gradio==6.31.0", "torch==2.9.1+cu128"]
    # The packages of a virtual environment are reached by a path file.
    assert (tree.venv / "site" / "zz_given_python.pth").read_text() == "/opt/conda/site-packages\n"


def test_a_named_python_without_torch_gets_one(tree: Tree) -> None:
    done = tree.launch("--python", "python3")
    assert "(torch: cpu)" in done.stderr
    refused = tree.launch("--torch", "keep", "--venv", "other")
    assert refused.returncode == 1
    assert "python3 has no torch; name one that has with --python PATH" in refused.stderr


def test_hardware_that_came_later_is_pointed_out(tree: Tree) -> None:
    tree.launch()
    tree.device("/dev/nvidia0")
    tree.forget()
    done = tree.launch()
    assert done.returncode == 0
    assert "hardware for torch 'cuda'" in done.stderr
    assert "bash launch.sh --torch cuda" in done.stderr
    assert tree.installs() == []  # nobody's packages are replaced unasked
    assert "making it anew" in tree.launch("--torch", "cuda").stderr
