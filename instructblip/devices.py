"""The device: which one, its dtype, its memory, and what its errors mean."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instructblip.ascend import SET_ENVIRONMENT, explain
from instructblip.errors import DeviceError, OutOfMemory

log = logging.getLogger(__name__)

# Above this many parameters a CPU runs in bf16: half the bytes to read for each token.
BF16_ON_CPU_ABOVE = 1_000_000_000
# Below this many parameters a second thread costs more than it brings.
ONE_THREAD_BELOW = 50_000_000


# Names of a dtype, short and as torch has them.
DTYPES = {
    "fp32": torch.float32, "float32": torch.float32,
    "bf16": torch.bfloat16, "bfloat16": torch.bfloat16,
    "fp16": torch.float16, "float16": torch.float16, "half": torch.float16,
}  # fmt: skip
# Shares of the free memory for keys and values; the rest is for activations, and other programs.
KV_SHARE_DEVICE, KV_SHARE_HOST = 0.8, 0.4
# Device types whose graphs are recorded. The NPU has them too (torch.npu.NPUGraph), untried.
GRAPHS = ("cuda",)
# Device types over which one model can be spread.
SPREADABLE = ("npu", "cuda")
# Chips without bf16, whose numbers saturate instead of overflowing. Source: torch-npu's documents.
FP16_ONLY_CHIPS = ("Ascend910A", "Ascend910ProA", "Ascend910ProB", "Ascend910PremiumA", "Ascend310")
# An error code of CANN (acl_base.h) as torch-npu prints it.
_NPU_CODE = re.compile(r"error code(?: is|:)\s*(\d{6})|\bERR\d{5}\b")
KINDS = ("npu", "cuda", "mps", "cpu")
# Weights of 4 and of 8 bits, by the end of their names.
_INTEGERS = {"packed": torch.uint8, "levels": torch.int8}
_IN_FP32 = ("qformer.", "query_tokens", "language_projection.")


@dataclass(frozen=True, slots=True)
class Precision:
    """LAVIS's split: ViT and language model in ``main``, Q-Former and projection in fp32.

    Source: lavis/models/blip2_models/blip2_vicuna_instruct.py runs ViT and language model under
    fp16 autocast and the Q-Former outside of it.
    """

    main: torch.dtype

    def of(self, name: str) -> torch.dtype:
        """The dtype of a tensor by its name in transformers' InstructBLIP.

        Quantised weights (:mod:`instructblip.weight_only`) are integers.
        """
        integers = _INTEGERS.get(name.rpartition(".")[2])
        if integers is not None:
            return integers
        return torch.float32 if name.startswith(_IN_FP32) else self.main


def choose_device(wish: str = "auto") -> torch.device:
    """``auto`` prefers npu, then cuda, mps, cpu; one that does not start is told and passed over.

    Raises:
        DeviceError: the wished device is not here, or does not start.
    """
    if wish == "auto":
        return next(found for kind in KINDS if (found := _try(kind)) is not None)
    kind, _, index = wish.partition(":")
    if kind not in KINDS or (index and not index.isdecimal()):
        raise DeviceError(
            f"device = {wish!r} is not known: use auto, npu, cuda, mps or cpu.",
            code="device_unknown",
        )
    if kind == "npu":
        _import_npu()
    if not _present(kind):
        raise DeviceError(
            f"device = {wish!r} was asked for, but this torch finds none. "
            "Use --device auto, or install the driver and the torch build for it.",
            code="device_absent",
            name=wish,
        )
    count = _count(kind)
    if int(index or 0) >= count:
        raise DeviceError(
            f"device = {wish!r} was asked for, but there are {count}, counted from 0. "
            f"Use {kind}:0 to {kind}:{count - 1}.",
            code="device_absent",
            name=wish,
        )
    return _started(torch.device(wish))


def choose_devices(wish: str = "auto") -> tuple[torch.device, ...]:
    """The devices that ``npu:0,npu:1`` names, over which a model is spread; else the only one.

    Raises:
        DeviceError: as :func:`choose_device`; several that are not of one kind, npu or cuda, each
            with its number and once.
    """
    names = [name.strip() for name in wish.split(",")]
    if len(names) == 1:
        return (choose_device(wish),)
    kind = names[0].partition(":")[0]
    numbers = [name.removeprefix(f"{kind}:") for name in names]
    known = kind in SPREADABLE and all(number.isdecimal() for number in numbers)
    if not known or len(set(map(int, numbers))) < len(numbers):
        raise DeviceError(
            f"device = {wish!r} is not allowed: several devices are of one kind, npu or cuda, each "
            "named once and with its number, as in npu:0,npu:1.",
            code="device_unknown",
        )
    # The first one last: the one that was opened last is the current one.
    return tuple(choose_device(name) for name in reversed(names))[::-1]


def _try(kind: str) -> torch.device | None:
    """The device of a kind, if it is here and starts; the reason why not goes to the log."""
    if not _present(kind):
        if kind == "npu" and _npu_fault is not None:
            log.warning("%s Going on without the NPU.", _npu_fault)
        return None
    try:
        return _started(torch.device(kind))
    except DeviceError as fault:
        log.warning("%s Going on without the %s device.", fault, kind)
        return None


def _present(kind: str) -> bool:
    if kind == "cpu":
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    module = getattr(torch, kind, None)
    return module is not None and bool(module.is_available())


def _count(kind: str) -> int:
    """Devices of a kind that are visible."""
    module = getattr(torch, kind, None)
    return int(module.device_count()) if kind in ("npu", "cuda") and module is not None else 1


def _started(device: torch.device) -> torch.device:
    """Open an NPU and set it up; other devices open at their first use."""
    if device.type != "npu":
        return device
    npu: Any = torch.npu  # type: ignore[attr-defined]
    try:
        npu.set_device(device)
        # 910A and 310P would compile operators for each shape, and keep tensors in own formats.
        npu.set_compile_mode(jit_compile=False)
        npu.config.allow_internal_format = False
    except RuntimeError as error:
        raise as_device_error(error) or error from error
    return device


# --- torch_npu: imported only where an NPU is found or asked for -------------------------------

_npu_fault: DeviceError | None = None


def _find_npu() -> None:
    """Import torch_npu if this machine shows an NPU; a failure is kept for whoever asks.

    transformers imports torch_npu wherever it is installed, and would fail with it: so a torch_npu
    that cannot be used is hidden from it.
    """
    global _npu_fault
    if hasattr(torch, "npu") or importlib.util.find_spec("torch_npu") is None:
        return
    if "ASCEND_HOME_PATH" in os.environ or any(Path("/dev").glob("davinci[0-9]*")):
        try:
            importlib.import_module("torch_npu")
            return
        except Exception as error:
            cure = explain(error)
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            _npu_fault = DeviceError(
                str(cure) if cure else f"torch-npu cannot be imported: {why}. {SET_ENVIRONMENT}",
                code="device_absent",
                name="npu",
            )
    sys.modules["torch_npu"] = None  # type: ignore[assignment]


def _import_npu() -> None:
    """Raise what is wrong with torch_npu, if it is installed and was not imported."""
    if _npu_fault is not None:
        raise _npu_fault
    if not hasattr(torch, "npu") and "torch_npu" in sys.modules:
        raise DeviceError(
            "device = 'npu' was asked for and torch-npu is installed, but this machine shows no "
            f"NPU and no CANN. {SET_ENVIRONMENT}",
            code="device_absent",
            name="npu",
        )


_find_npu()


def choose_dtype(wish: str, device: torch.device, parameters: int) -> torch.dtype:
    """``auto``: fp32 for small models on a CPU, bf16 for large ones, half precision on devices."""
    if wish != "auto":
        try:
            wished = DTYPES[wish.removeprefix("torch.").lower()]
        except KeyError:
            raise DeviceError(
                f"dtype = {wish!r} is not known: use auto, fp32, bf16 or fp16 (or float32, "
                "bfloat16, float16).",
                code="dtype_unknown",
            ) from None
        if wished is torch.bfloat16 and device.type == "npu" and fp16_only(device):
            raise DeviceError(
                f"dtype = {wish!r}: this chip ({_chip(device)}) has no bf16. Use --dtype fp16.",
                code="dtype_unknown",
            )
        return wished
    if device.type == "cpu":
        return torch.bfloat16 if parameters > BF16_ON_CPU_ABOVE else torch.float32
    return torch.float16


def fp16_only(device: torch.device) -> bool:
    """Whether an NPU's chip lacks bf16 and its fused attention: 910A, 310P."""
    return _chip(device).startswith(FP16_ONLY_CHIPS)


def _chip(device: torch.device) -> str:
    return str(torch.npu.get_device_name(device))  # type: ignore[attr-defined]


def set_threads(device: torch.device, parameters: int) -> None:
    """A small model on a CPU is fastest on one thread; a large one keeps torch's choice."""
    if device.type == "cpu" and parameters < ONE_THREAD_BELOW:
        torch.set_num_threads(1)


def free_memory(device: torch.device) -> int | None:
    """Bytes free on an accelerator; None for a CPU and where the driver does not say."""
    ask = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    return None if ask is None else int(ask(device)[0])


def as_device_error(error: BaseException) -> DeviceError | None:
    """The typed error for a torch run-time failure, or None if it is something else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(
        error
    ):
        return OutOfMemory(
            "The device has no memory left for this request. Start a new chat, ask again later, "
            "or lower max_new_tokens.",
        )
    text = str(error)
    code = _NPU_CODE.search(text) if isinstance(error, RuntimeError) else None
    if code is None:
        return None
    fault = explain(text)
    if fault is not None and fault.memory:
        return OutOfMemory(str(fault))
    if fault is not None:
        return DeviceError(f"{fault} (Error {code[1] or code[0]}.)")
    return DeviceError(
        f"The NPU failed with error {code[1] or code[0]}. Look at `npu-smi info`, and start the "
        "program again; CANN's log is in ~/ascend/log."
    )


@contextlib.contextmanager
def short_products(device: torch.device, main: torch.dtype) -> Iterator[None]:
    """fp32 matmuls in TF32 on CUDA where the model's ``main`` dtype is shorter still.

    Its mantissa of 10 bits is fp16's; the Q-Former then takes a fraction of the time.
    """
    if device.type != "cuda" or main is torch.float32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def can_capture(*devices: torch.device) -> bool:
    """Whether forwards of fixed shape are recorded once and replayed as a graph on these devices.

    A graph belongs to one device: a forward that crosses several is not recorded.
    """
    return len(devices) == 1 and devices[0].type in GRAPHS


class Graphs:
    """Forwards recorded as device graphs: the host launches once what was many kernels.

    They share their memory, so one runs at a time: the thread that owns the model runs them.
    """

    def __init__(self, *devices: torch.device) -> None:
        self._devices = devices
        self._held: dict[Hashable, Captured] = {}
        self._pool: Any = None

    def run(self, name: Hashable, forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``forward`` of tensors on the device, recorded once for each name and shapes of inputs.

        It must not ask the host anything, and running it again with the same inputs must change
        nothing. Where nothing can be recorded it is called as it is.
        """
        if not can_capture(*self._devices):
            return forward(*inputs)
        key = (name, *(tensor.shape for tensor in inputs))
        if key not in self._held:
            if self._pool is None:
                self._pool = getattr(torch, self._devices[0].type).graph_pool_handle()
            self._held[key] = Captured(forward, inputs, self._pool)
        return self._held[key].run(inputs)


class Captured:
    """A forward recorded as a device graph; it reads its inputs from this object's tensors."""

    def __init__(
        self, forward: Callable[..., Tensor], inputs: Sequence[Tensor], pool: Any = None
    ) -> None:
        """``inputs``: tensors on the device, of the shapes of all later ones."""
        module = getattr(torch, inputs[0].device.type)
        self._inputs = [tensor.clone() for tensor in inputs]
        aside = module.Stream()
        aside.wait_stream(module.current_stream())
        with module.stream(aside):  # libraries and compilers set themselves up before the recording
            for _ in range(2):
                forward(*self._inputs)
        module.current_stream().wait_stream(aside)
        self._graph = getattr(module, f"{inputs[0].device.type.upper()}Graph")()
        with module.graph(self._graph, pool=pool):
            self._output = forward(*self._inputs)

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The forward's output, in memory of its own."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._output.clone()


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device after an out-of-memory error."""
    module = getattr(torch, device.type, None)
    if device.type != "cpu" and module is not None:
        module.empty_cache()


def kv_memory(device: torch.device) -> int:
    """Bytes that keys and values may take: a share of what is free now, the weights loaded."""
    from instructblip.checkpoints.room import free_memory as free_host_memory

    free = free_memory(device)
    return int(free_host_memory() * KV_SHARE_HOST if free is None else free * KV_SHARE_DEVICE)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
