"""The device: which one, its dtype, its memory, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructblip.errors import DeviceError, OutOfMemory

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

        4-bit weights (:class:`instructblip.fused.Int4Linear`) are bytes.
        """
        if name.endswith(".packed"):
            return torch.uint8
        return torch.float32 if name.startswith(_IN_FP32) else self.main


def choose_device(wish: str = "auto") -> torch.device:
    """``auto`` prefers npu, then cuda, mps, cpu.

    Raises:
        DeviceError: the wished device is not here.
    """
    if wish == "auto":
        return torch.device(next(k for k in ("npu", "cuda", "mps", "cpu") if _present(k)))
    kind = wish.partition(":")[0]
    if kind not in ("npu", "cuda", "mps", "cpu"):
        raise DeviceError(
            f"device = {wish!r} is not known: use auto, npu, cuda, mps or cpu.",
            code="device_unknown",
        )
    if not _present(kind):
        raise DeviceError(
            f"device = {wish!r} was asked for, but this torch finds none. "
            "Use --device auto, or install the driver and the torch build for it.",
            code="device_absent",
            name=wish,
        )
    return torch.device(wish)


def _present(kind: str) -> bool:
    if kind == "cpu":
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    module = getattr(torch, kind, None)
    return module is not None and bool(module.is_available())


def choose_dtype(wish: str, device: torch.device, parameters: int) -> torch.dtype:
    """``auto``: fp32 for small models on a CPU, bf16 for large ones, half precision on devices."""
    if wish != "auto":
        try:
            return DTYPES[wish.removeprefix("torch.").lower()]
        except KeyError:
            raise DeviceError(
                f"dtype = {wish!r} is not known: use auto, fp32, bf16 or fp16 (or float32, "
                "bfloat16, float16).",
                code="dtype_unknown",
            ) from None
    if device.type == "cpu":
        return torch.bfloat16 if parameters > BF16_ON_CPU_ABOVE else torch.float32
    return torch.float16


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
    return None


def can_capture(device: torch.device) -> bool:
    """Whether forwards of fixed shape are recorded once and replayed as a graph here."""
    return device.type in GRAPHS


class Captured:
    """A forward recorded as a device graph: the host launches once what was many kernels.

    The forward reads its inputs from this object's tensors and must not ask the host anything.
    """

    def __init__(self, forward: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        """``inputs``: tensors on the device with which running ``forward`` changes nothing."""
        module = getattr(torch, inputs[0].device.type)
        self._inputs = [tensor.clone() for tensor in inputs]
        aside = module.Stream()
        aside.wait_stream(module.current_stream())
        with module.stream(aside):  # libraries set themselves up outside of the recording
            for _ in range(2):
                forward(*self._inputs)
        module.current_stream().wait_stream(aside)
        self._graph = getattr(module, f"{inputs[0].device.type.upper()}Graph")()
        with module.graph(self._graph):
            self._output = forward(*self._inputs)

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The forward's output; it is overwritten by the next run."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._output


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
    module = getattr(torch, device.type, None)
    if device.type != "cpu" and module is not None:
        module.synchronize()
