"""Removes the NPU's lines one at a time and reports which no test misses.

``python -m tests.npu.remove_lines [word]`` works on a copy of the tree and takes several minutes;
with a word, only removals whose description holds it. README.md lists them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("instructblip", "tests", "pyproject.toml", "requirements-npu-sim.txt")
LINKED = ("assets", "webui", "launch.sh")  # read, never changed
DEVICES, FUSED = "instructblip/devices.py", "instructblip/fused.py"
FUSED_NPU, MODEL = "instructblip/fused_layers.py", "instructblip/model.py"
KERNELS = "instructblip/kernels.py"
CHOICE, CHAT, FAULTS = (
    "tests/npu/test_devices.py",
    "tests/npu/test_chat.py",
    "tests/npu/test_faults.py",
)
OPERATORS, TRACE = "tests/npu/test_operators.py", "tests/npu/test_trace.py"
ON_NPU, ON_CPU = "tests/npu/test_fused.py", "tests/instructblip/test_fused_layers.py"
EIGHT = "tests/npu/test_quantised.py"
ATTENTION, SPREAD = "instructblip/attention.py", "instructblip/spread.py"
OVER_TWO, ON_CPU_TOO = "tests/npu/test_spread.py", "tests/instructblip/test_spread.py"
LOOK = '            log.warning("%s Going on without the NPU.", _npu_fault)'
SHOWN = 'if "ASCEND_HOME_PATH" in os.environ or any(Path("/dev").glob("davinci[0-9]*")):'


class Removal(NamedTuple):
    """``old``, which is in ``file`` once, becomes ``new``; one of ``tests`` is to fail."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


REMOVALS = (
    Removal("`auto` prefers the NPU", DEVICES, 'KINDS = ("npu", "cuda", "mps", "cpu")',
            'KINDS = ("cuda", "mps", "cpu", "npu")', (CHOICE,)),
    Removal("910B: auto is fp16", DEVICES, "    return torch.float16\n",
            "    return torch.float32\n", (CHOICE,)),
    Removal("bf16 is refused where the chip has none", DEVICES,
            'device.type == "npu" and fp16_only(device):', "False:", (CHOICE,)),
    Removal("310P has no bf16", DEVICES, ', "Ascend310")', ")", (CHOICE,)),
    Removal("910A has no bf16", DEVICES, '("Ascend910A", ', "(", (CHOICE,)),
    Removal("no operator is compiled at run time", DEVICES,
            "        npu.set_compile_mode(jit_compile=False)\n", "", (CHOICE, TRACE)),
    Removal("no own tensor formats", DEVICES,
            "        npu.config.allow_internal_format = False\n", "", (CHOICE,)),
    Removal("the NPU is opened when it is chosen", DEVICES,
            "        npu.set_device(device)\n", "", (CHOICE,)),
    Removal("a start that fails is a device error", DEVICES,
            "        raise as_device_error(error) or error from error", "        raise", (CHOICE,)),
    Removal("torch_npu is imported where an NPU shows", DEVICES,
            '            importlib.import_module("torch_npu")\n', "", (CHOICE,)),
    Removal("torch_npu is imported only where an NPU shows", DEVICES, SHOWN, "if True:", (CHOICE,)),
    Removal("a torch_npu that cannot be used is hidden", DEVICES,
            '    sys.modules["torch_npu"] = None  # type: ignore[assignment]\n', "", (CHOICE,)),
    Removal("the cure of a failed import", DEVICES, "str(cure) if cure else", "", (CHOICE,)),
    Removal("the warning when `auto` passes an NPU over", DEVICES, LOOK, "            pass", (CHOICE,)),
    Removal("a broken torch_npu is an error when asked for", DEVICES,
            '    if kind == "npu":\n        _import_npu()\n', "", (CHOICE,)),
    Removal("devices are counted", DEVICES, "if int(index or 0) >= count:", "if False:", (CHOICE,)),
    Removal("synchronise waits", DEVICES,
            "        getattr(torch, device.type).synchronize(device)", "        pass", (CHAT,)),
    Removal("error codes are explained", DEVICES, "    fault = explain(text)\n",
            "    fault = None\n", (FAULTS,)),
    Removal("error codes are read", DEVICES,
            "_NPU_CODE.search(text) if isinstance(error, RuntimeError) else None", "None",
            (FAULTS,)),
    Removal("out of memory is told apart", DEVICES, "torch.OutOfMemoryError | MemoryError",
            "MemoryError", (FAULTS,)),
    Removal("CANN's own out-of-memory codes", DEVICES, "if fault is not None and fault.memory:",
            "if False:", (ON_CPU,)),
    Removal("blocks go back after out of memory", DEVICES, "        module.empty_cache()",
            "        pass", (ON_NPU,)),
    Removal("free memory is asked for", DEVICES,
            "return None if ask is None else int(ask(device)[0])", "return None", (CHOICE,)),
    Removal("the fused attention's mask is turned round", FUSED, "return ~seen", "return seen",
            (CHAT,)),
    Removal("the fused attention", FUSED, 'return device.type == "npu" and not fp16_only(device)',
            "return False", (OPERATORS,)),
    Removal("its scale", FUSED, "atten_mask=mask, scale=query.shape[-1] ** -0.5,",
            "atten_mask=mask,", (CHAT,)),
    Removal("its mask", FUSED, "atten_mask=mask, scale", "scale", (CHAT,)),
    Removal("attention written out on old chips", FUSED,
            'return device.type == "npu" and fp16_only(device)', "return False", (TRACE,)),
    Removal("old chips have no fused attention", FUSED, "and not fp16_only(device)", "", (TRACE,)),
    Removal("the added mask is large and negative", FUSED, "low = torch.finfo(torch.float16).min",
            "low = 0.0", (ON_NPU,)),
    Removal("the fused norm", KERNELS, '_best("rms_norm", x.device)', '_PLAIN["rms_norm"]',
            (OPERATORS,)),
    Removal("the fused residual and norm", KERNELS, '_best("add_rms_norm", x.device)',
            '_PLAIN["add_rms_norm"]', (OPERATORS,)),
    Removal("the fused rotary embedding", KERNELS, '_best("rotate", x.device)', '_PLAIN["rotate"]',
            (TRACE,)),
    Removal("the fused SwiGLU", KERNELS, '_best("swiglu", x.device)', '_PLAIN["swiglu"]',
            (OPERATORS,)),
    Removal("SwiGLU's input is contiguous", KERNELS, "npu_swiglu(x.contiguous())",
            "npu_swiglu(x)", (ON_NPU, CHAT)),
    Removal("8-bit weights in the NPU's own matmul", KERNELS, '_best("int8_matmul", x.device)',
            '_PLAIN["int8_matmul"]', (EIGHT,)),
    Removal("its weights are transposed", KERNELS, "x, levels.T, scales", "x, levels, scales",
            (EIGHT,)),
    Removal("8-bit weights stay where the matmul is", "instructblip/int8.py",
            'if device.type == "npu":', "if False:", (EIGHT,)),
    Removal("in fp32 they become plain", "instructblip/int8.py", "dtype in _HALF and ", "", (EIGHT,)),
    Removal("8-bit queries, keys and values merge", FUSED_NPU,
            "        return Int8Linear.merged(linears)\n", "        return None\n", (EIGHT,)),
    Removal("310P: rotary embedding is written out", KERNELS,
            '_COMPILED_ON_OLD_CHIPS = ("rotate",)', "_COMPILED_ON_OLD_CHIPS = ()", (TRACE,)),
    Removal("310P: no layer turns a sign", KERNELS,
            "return cls(cos, sin, torch.cat([-first, second], -1))", "return cls(cos, sin)", (TRACE,)),
    Removal("an operator that differs is left out", KERNELS, "    return same\n",
            "    return True\n", (ON_CPU,)),
    Removal("an operator that fails is left out", KERNELS,
            "except Exception as error:  # a compiler", "except KeyError as error:  # a compiler",
            (ON_CPU,)),
    Removal("queries, keys and values in one matmul", FUSED_NPU,
            "            attention.__class__ = FusedAttention\n", "", (TRACE,)),
    Removal("gate and up in one matmul", FUSED_NPU,
            "            mlp.__class__ = FusedMLP\n", "", (TRACE,)),
    Removal("merged weights are views, not copies", FUSED_NPU,
            "        module.weight = nn.Parameter(part, requires_grad=False)\n", "        pass\n",
            (ON_CPU,)),
    Removal("what is quantised is not merged", FUSED_NPU,
            "    if not all(type(m) is nn.Linear and m.bias", "    if not all(m.bias", (ON_CPU,)),
    Removal("what has a bias is not merged", FUSED_NPU,
            "type(m) is nn.Linear and m.bias is None for", "type(m) is nn.Linear for", (ON_CPU,)),
    Removal("merged weights are in no file", FUSED_NPU,
            'object.__setattr__(attention, "qkv", merged)', 'attention.qkv = merged', (ON_CPU,)),
    Removal("the residual is added by the norm", FUSED_NPU,
            "        layer.__class__ = FusedLayer\n", "", (TRACE,)),
    Removal("the layers' first norm", FUSED_NPU,
            "        layer.input_layernorm.__class__ = FusedNorm\n", "", (TRACE,)),
    Removal("the last norm", FUSED_NPU, "    model.norm.__class__ = FusedNorm\n", "", (TRACE,)),
    Removal("ViT and Q-Former attend through ours", FUSED_NPU,
            "            tower.set_attn_implementation(TOWER_ATTENTION)", "            pass", (TRACE,)),
    Removal("the language model is fused", FUSED_NPU,
            "        fuse_layers(weights.language_model)\n", "", (TRACE,)),
    Removal("a loaded model is fused", MODEL, "        fuse_for(weights, self.device)\n", "",
            (OPERATORS,)),
    Removal("over two: a step's mask goes along", ATTENTION,
            "        there._mask = self._mask.to(device)\n", "", (OVER_TWO,)),
    Removal("over two: where a step writes goes along", ATTENTION,
            "        there._at = self._at[:, :1, :, :1].to(device).expand_as(self._at)\n", "",
            (OVER_TWO,)),
    Removal("over two: a prefill's masks go along", ATTENTION, "None if m is None else m.to(device)",
            "m", (OVER_TWO,)),
    Removal("over two: what layers share goes over once", SPREAD, "if given is value:", "if False:",
            (OVER_TWO,)),
    Removal("over two: nothing of a forward is kept after the next", SPREAD,
            "        self._shared.clear()\n", "", (ON_CPU_TOO,)),
    Removal("over two: logits come back", SPREAD, "logits.to(first)", "logits", (OVER_TWO,)),
    Removal("over two: free blocks are counted as free", SPREAD,
            "    release_memory(layers[0])  # what loading and fusing let go of\n", "", (TRACE,)),
    Removal("over two: the device with the least room decides", SPREAD,
            "* len(layers) // count", "", (ON_CPU_TOO,)),
    Removal("over two: keys lie with their layer", "instructblip/engine/kv_cache.py",
            "self.keys = [_zeros(size, dtype, device)", "self.keys = [_zeros(size, dtype, each[0])",
            (OVER_TWO,)),
    Removal("over two: the first device is the current one", DEVICES, "reversed(names))[::-1]",
            "names)", (OVER_TWO,)),
    Removal("over two: no graph is recorded", DEVICES, "len(devices) == 1 and ", "", (ON_CPU_TOO,)),
)  # fmt: skip


def main(word: str = "") -> int:
    """Run the removals. → 1 if a removal went unnoticed or no longer fits the code."""
    survivors, begun = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        _copy(copy)
        everything = tuple(dict.fromkeys(t for r in REMOVALS if word in r.what for t in r.tests))
        if not _passes(copy, everything):
            print("The tests fail already when nothing is removed.")
            return 1
        for removal in REMOVALS:
            if word not in removal.what:
                continue
            said = _run(copy, removal)
            print(f"{said:8} {removal.what} ({removal.file})", flush=True)
            if said != "noticed":
                survivors.append(removal.what)
    print(f"{len(survivors)} not noticed, {time.monotonic() - begun:.0f} s: {survivors}")
    return int(bool(survivors))


def _copy(target: Path) -> None:
    target.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__", "oracle", "browser")
            shutil.copytree(source, target / name, ignore=skip)
        else:
            shutil.copy(source, target / name)
    for name in LINKED:
        (target / name).symlink_to(ROOT / name)


def _run(copy: Path, removal: Removal) -> str:
    """→ "noticed", "UNSEEN" when the tests pass, "MISFIT" when the line is not there once."""
    path = copy / removal.file
    whole = path.read_text("utf-8")
    if whole.count(removal.old) != 1:
        return "MISFIT"
    path.write_text(whole.replace(removal.old, removal.new), "utf-8")
    try:
        return "UNSEEN" if _passes(copy, removal.tests) else "noticed"
    finally:
        path.write_text(whole, "utf-8")


def _passes(copy: Path, tests: tuple[str, ...]) -> bool:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"PYTHONPATH": str(copy), "INSTRUCTBLIP_STRICT": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=600)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
