"""One model over several devices: where its parts lie, and how a forward goes from one to the next.

accelerate makes the map (infer_auto_device_map) and counts keys and values with their layers; each
layer of the language model stays whole, all that comes before the layers lies on the first device.
accelerate's own hooks (dispatch_model) are not used: they sit on every linear, and move the mask
and the angles again for each layer.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from instructblip.checkpoints.room import gigabytes
from instructblip.devices import Precision, free_memory, kv_memory, release_memory
from instructblip.errors import OutOfMemory
from instructblip.int8 import Int8Linear, keeps_int8
from instructblip.quantised import kind_of

_LAYER = "LlamaDecoderLayer"
# Conversations whose keys and values the map counts with their layers: as many of these as fit.
_CONVERSATIONS = (16, 8, 4, 2, 1)
# The largest share of the free memory that the map fills; the rest is for activations.
_FILLED = 0.95
_HALVINGS = 7  # of the search for the smallest share that holds the model
# Modules of the language model that may lie behind the first device.
_MOVABLE = ("language_model.model.layers", "language_model.model.norm", "language_model.lm_head")


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices by names of modules and parameters, in the form of accelerate's device map."""

    parts: Mapping[str, torch.device]

    def of(self, name: str) -> torch.device:
        """The device of a tensor or module by its name in transformers' InstructBLIP."""
        while name not in self.parts:
            name = name.rpartition(".")[0]
        return self.parts[name]

    def layers(self, config: Any) -> Counter[torch.device]:
        """How many of the language model's layers each device has."""
        count = config.get_text_config().num_hidden_layers
        return Counter(self.of(f"{_MOVABLE[0]}.{n}") for n in range(count))


def spread(
    config: Any, context: int, precision: Precision, devices: Sequence[torch.device],
    what: str, free: Sequence[int] | None = None,
) -> Placement:  # fmt: skip
    """Where the parts of a model go, so that weights, keys and values fit; all to an only device.

    Args:
        config: of transformers' InstructBLIP.
        context: positions of a conversation.
        precision: of the weights; keys and values are in its main dtype.
        devices: the first gets all that is not the language model's layers, norm and head.
        what: the model's name, for the error.
        free: bytes free on each device; asked of the devices if None.

    Raises:
        OutOfMemory: the weights and one conversation do not fit; what is needed and what each has.
    """
    if len(devices) == 1:
        return Placement({"": devices[0]})
    free = [free_memory(device) or 0 for device in devices] if free is None else free
    eight = kind_of(config) is Int8Linear and keeps_int8(devices[0], precision.main)
    model = _outline(config, precision, eight)
    layers = model.language_model.model.layers
    each = 2 * layers[0].self_attn.k_proj.out_features * (context + 1) * precision.main.itemsize
    for count in _CONVERSATIONS:
        for layer in layers:
            kept = torch.empty(count * each, dtype=torch.uint8, device="meta")
            layer.register_buffer("keys_and_values", kept, persistent=False)
        if found := _evenest(model, devices, free):
            return found
    raise _too_little(model, each * len(layers), devices, free, what)


def _outline(config: Any, precision: Precision, eight: bool = False) -> Any:
    """The model as it will lie on the devices, dtypes included, on the meta device.

    ``eight``: with linears of 8 bits in the language model; their scales are not counted.
    """
    from transformers import InstructBlipForConditionalGeneration

    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(precision.of(name))
    for module in model.language_model.modules() if eight else ():
        if type(module) is nn.Linear and Int8Linear.fits(module):
            module.weight = nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    return model


def _evenest(model: Any, devices: Sequence[torch.device], free: Sequence[int]) -> Placement | None:
    """The placement that fills each device to as small a share of its free memory as can be."""
    whole = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    least, most = whole / max(sum(free), 1), _FILLED
    best = _filling(model, devices, free, most) if least < most else None
    for _ in range(_HALVINGS if best else 0):
        middle = (least * most) ** 0.5
        if found := _filling(model, devices, free, middle):
            best, most = found, middle
        else:
            least = middle
    return best


def _filling(
    model: Any, devices: Sequence[torch.device], free: Sequence[int], share: float
) -> Placement | None:
    """Device after device filled to a share of what is free; None where that is too little."""
    from accelerate import infer_auto_device_map

    room = {at: int(size * share) for at, size in enumerate(free)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the disk would have to take a part
        parts = infer_auto_device_map(model, room, [_LAYER])
    if not set(parts.values()) <= set(room):
        return None
    place = Placement({name: devices[at] for name, at in parts.items()})
    fixed = [name for name, _ in model.named_parameters() if not name.startswith(_MOVABLE)]
    first = all(place.of(name) == devices[0] for name in (*fixed, f"{_MOVABLE[0]}.0"))
    return place if first else None


def _too_little(
    model: Any, keys_and_values: int, devices: Sequence[torch.device], free: Sequence[int],
    what: str,
) -> OutOfMemory:  # fmt: skip
    sizes = {name: p.nbytes for name, p in model.named_parameters()}
    before = sum(size for name, size in sizes.items() if not name.startswith(_MOVABLE))
    has = ", ".join(f"{d} has {gigabytes(f)} free" for d, f in zip(devices, free, strict=True))
    name = str(model.language_model.dtype).removeprefix("torch.")
    return OutOfMemory(
        f"The weights of {what} take {gigabytes(sum(sizes.values()))} in {name}, keys and values of "
        f"one conversation {gigabytes(keys_and_values)}; {has}. {devices[0]} has to hold what comes "
        f"before the layers ({gigabytes(before)}), and each layer lies whole on one device. Stop "
        "other programs there, use --dtype fp16, or name more devices in --device."
    )


def cache_memory(layers: Sequence[torch.device]) -> int:
    """Bytes that keys and values of all layers may take, each layer's on its own device.

    ``layers``: each layer's device. The device with the least room for its layers decides.
    """
    release_memory(layers[0])  # what loading and fusing let go of
    return min(kv_memory(d) * len(layers) // count for d, count in Counter(layers).items())


class Fetch:
    """Brings what a layer takes to its device: what all layers share (angles, mask) once a forward."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shared: list[tuple[Any, Any]] = []  # what was given, what it is here

    def begin(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """The hook of the first layer on the device: whatever an earlier forward left is old."""
        self._shared.clear()
        return self(module, args, kwargs)

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """A forward pre-hook of torch with keywords."""
        return self._here(args), {name: self._once(value) for name, value in kwargs.items()}

    def _once(self, value: Any) -> Any:
        for given, here in self._shared:
            if given is value:
                return here
        here = self._here(value)
        self._shared.append((value, here))
        return here

    def _here(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self._device)
        if isinstance(value, tuple):
            here = [self._here(part) for part in value]
            return value._make(here) if hasattr(value, "_make") else tuple(here)  # named or not
        move = getattr(value, "on", None)  # an Attending; transformers' own caches know the layers
        return value if move is None else move(self._device)


def connect(weights: Any) -> tuple[torch.device, ...]:
    """Let a forward of the language model cross its devices. → each layer's device.

    Logits come back to the first device. On one device nothing is added.
    """
    language, first = weights.language_model, weights.device
    places = tuple(_device(layer, first) for layer in language.model.layers)
    fetches: dict[torch.device, Fetch] = {}
    for layer, place in zip(language.model.layers, places, strict=True):
        if place in fetches:
            layer.register_forward_pre_hook(fetches[place], with_kwargs=True)
        elif place != first:
            fetches[place] = Fetch(place)
            layer.register_forward_pre_hook(fetches[place].begin, with_kwargs=True)
    head = language.lm_head
    ends = {module: _device(module, first) for module in (language.model.norm, head)}
    if {*places, *ends.values()} != {first}:
        for module, place in ends.items():
            module.register_forward_pre_hook(Fetch(place).begin, with_kwargs=True)
        head.register_forward_hook(lambda module, args, logits: logits.to(first))
    return places


def _device(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a module lies; a packed or quantised one, which has no parameters, is on a CPU."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), otherwise)
