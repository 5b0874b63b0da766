"""Compute mode: every kernel of the simulated NPU runs on the CPU over the device's memory.

The kernels that torch_npu registers are registered again with Python ones: each makes CPU aliases
of its arguments, runs the same operator on them, and allocates the result on the device. An
operator that torch_npu has no kernel for still goes to its CPU fallback, and is seen there.
"""

from __future__ import annotations

import ctypes
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# These work on the device's memory and metadata and stay torch_npu's own.
OWN = {
    "empty.memory_format", "empty_strided", "view", "view.dtype", "as_strided", "_reshape_alias",
    "set_.source_Storage_storage_offset", "set_.source_Storage", "set_.source_Tensor", "set_",
    "resize_", "squeeze", "squeeze.dim", "squeeze.dims", "unsqueeze", "unfold", "is_pinned",
    "_pin_memory", "pin_memory", "record_stream", "_local_scalar_dense", "copy_",
    "_copy_from", "_to_copy", "_copy_from_and_resize", "is_set_to",
}  # fmt: skip
# Take indices that lie on the host, as torch_npu's kernels do.
HOST_INDICES = ("aten::index", "aten::_index_put_impl_", "aten::index_put_")

runtime = ctypes.CDLL("libascendcl.so")
used: set[str] = set()  # operators that ran, for the list of those that are covered
crossed: list[tuple[str, str]] = []  # copies from one device to another

_libraries: list[torch.library.Library] = []
_generators: weakref.WeakKeyDictionary[torch.Generator, torch.Generator] = (
    weakref.WeakKeyDictionary()
)


class DeviceFault(RuntimeError):
    """What torch_npu raises when a kernel ends with an error code."""


def install() -> None:
    """Register every kernel anew."""
    torch.npu.init()
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    copy = torch.library.get_kernel("aten::copy_", "PrivateUse1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is overridden
        for name in torch._C._dispatch_get_registrations_for_dispatch_key("PrivateUse1"):
            space, _, short = name.partition("::")
            packet, _, overload = short.partition(".")
            if space == "aten" and short not in OWN and hasattr(torch.ops.aten, packet):
                op = getattr(getattr(torch.ops.aten, packet), overload or "default")
                library.impl(short, _kernel(name, op), "PrivateUse1")
        attention = torch.ops.aten.scaled_dot_product_attention.default
        library.impl(
            "scaled_dot_product_attention", _kernel("aten::scaled_dot_product_attention", attention),
            "AutogradPrivateUse1",
        )  # fmt: skip
        library.impl("_to_copy", _to_copy, "PrivateUse1")
        library.impl("copy_", _copy(copy), "PrivateUse1", with_keyset=True)


def implement(name: str, function: Callable[..., Any]) -> None:
    """Give an operator of torch_npu's own (``npu::…``) a CPU function as its kernel."""
    space, _, short = name.partition("::")
    library = torch.library.Library(space, "IMPL")
    _libraries.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.impl(short, _kernel(name, function), "PrivateUse1")


def _kernel(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    schema = getattr(function, "_schema", None)
    outs = {a.name for a in schema.arguments if a.is_out} if schema is not None else set()

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return _Call(name).run(function, args, kwargs, outs)

    return kernel


class _Call:
    """One kernel: its aliases, its device, and the way of its results back."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._aliases: list[tuple[Tensor, Tensor]] = []  # alias, device tensor
        self._device: torch.device | None = None
        self._wished: torch.device | None = None  # what the argument device= says
        self._host = 0

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any, outs: set[str]) -> Any:
        used.add(self._name)
        launch(self._name)
        given = {key: kwargs.pop(key) for key in list(kwargs) if key in outs}
        args, kwargs = pytree.tree_map(self._to_host, (args, kwargs))
        fresh = {k: torch.empty(0, dtype=out.dtype) for k, out in given.items()}
        if self._device is None and given:
            self._device = next(iter(given.values())).device
        if self._host and self._aliases and not self._name.startswith(HOST_INDICES):
            raise RuntimeError(f"{self._name}: tensors on npu and on the CPU in one call")
        result = function(*args, **kwargs, **fresh)
        for key, out in given.items():
            if out.shape != fresh[key].shape:
                out.resize_(fresh[key].shape)
            alias(out).copy_(fresh[key])
            self._aliases.append((fresh[key], out))
        return pytree.tree_map(self._to_device, result)

    def _to_host(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.device.type != "npu":
                self._host += value.ndim > 0
                return value
            self._device = self._device or value.device
            if value.device != self._device:
                raise RuntimeError(f"{self._name}: tensors on {self._device} and {value.device}")
            made = alias(value)
            self._aliases.append((made, value))
            return made
        if isinstance(value, torch.device):
            self._wished = value
            return torch.device("cpu")
        if isinstance(value, torch.Generator) and value.device.type == "npu":
            return _generator(value)
        return value

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        for made, original in self._aliases:
            if made is value:
                return original
        if value.numel():
            storage = value.untyped_storage().data_ptr()
            for made, original in self._aliases:  # a view of an argument
                if made.numel() and made.untyped_storage().data_ptr() == storage:
                    return original.as_strided(value.shape, value.stride(), value.storage_offset())
        place = self._wished or self._device or torch.device("npu")
        if place.type == "cpu":
            return value
        out = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=place)
        alias(out).copy_(value)
        return out


def launch(name: str) -> None:
    """What a kernel does to the runtime: pending copies to the device end, faults come up."""
    runtime.simulation_kernel()
    if code := runtime.simulation_fault_of(b"kernel"):
        raise DeviceFault(
            f"{name.partition('::')[2]}:the simulated kernel failed, error code is {code}\n"
            "[ERROR] ERR00100 PTA call acl api failed"
        )


def alias(tensor: Tensor) -> Tensor:
    """The same memory as a CPU tensor."""
    storage = tensor.untyped_storage()
    made = torch.empty(0, dtype=tensor.dtype)
    if storage.nbytes() == 0:
        return made.new_empty(tensor.shape)
    bytes_ = torch._C._construct_storage_from_data_pointer(
        storage.data_ptr(), torch.device("cpu"), storage.nbytes()
    )
    return made.set_(bytes_, tensor.storage_offset(), tensor.shape, tensor.stride())


def _generator(device: torch.Generator) -> torch.Generator:
    if device not in _generators:
        _generators[device] = torch.Generator().manual_seed(device.initial_seed())
    return _generators[device]


def _to_copy(source: Tensor, *, non_blocking: bool = False, **options: Any) -> Tensor:
    """``Tensor.to`` in terms of ``copy_``; as torch_npu's, without blocking it pins the result."""
    wished = {k: v for k, v in options.items() if v is not None and k != "pin_memory"}
    if non_blocking and "device" in wished and wished["device"].type == "cpu":
        wished["pin_memory"] = True
    launch("aten::_to_copy")
    return torch.empty_like(source, **wished).copy_(source, non_blocking)


def _copy(plain: Any) -> Callable[..., Tensor]:
    """``copy_``: between devices through the runtime's own copies, on the device as a kernel."""

    def raw(keys: Any, to: Tensor, source: Tensor, non_blocking: bool) -> None:
        plain.call_boxed(keys, to, source, non_blocking)

    def kernel(keys: Any, to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if to.device == source.device:
            launch("aten::copy_")
            alias(to).copy_(alias(source))
        elif to.device.type == "npu" and source.device.type == "npu":
            runtime.simulation_kernel()
            crossed.append((str(source.device), str(to.device)))
            alias(to).copy_(alias(source))
        elif to.device.type == "npu":
            ready = source.to(to.dtype).expand(to.shape).contiguous()
            if to.is_contiguous():
                raw(keys, to, ready, non_blocking)
            else:
                dense = torch.empty(to.shape, dtype=to.dtype, device=to.device)
                raw(keys, dense, ready, False)
                kernel(keys, to, dense)
        else:
            ready = source.contiguous()
            if to.is_contiguous() and to.dtype == ready.dtype and to.shape == ready.shape:
                raw(keys, to, ready, non_blocking)
            else:
                host = torch.empty(ready.shape, dtype=ready.dtype)
                raw(keys, host, ready, False)
                to.copy_(host)
        return to

    return kernel
