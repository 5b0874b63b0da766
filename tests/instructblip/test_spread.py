"""Where the parts of a model go; tests/npu/test_spread.py runs one over two simulated NPUs."""

from __future__ import annotations

import weakref
from collections import Counter
from functools import cache

import pytest
import torch

from instructblip import shapes, spread
from instructblip.attention import RaggedAttention, Span, StaticAttention
from instructblip.devices import Precision, can_capture, choose_devices
from instructblip.engine.kv_cache import Arena, CacheShape
from instructblip.errors import DeviceError, OutOfMemory
from instructblip.model import InstructBlip
from instructblip.spread import Placement

GB = 2**30
FP16 = Precision(torch.float16)
SHAPE = shapes.SHAPES["vicuna-13b"]
CONFIG = shapes._config(SHAPE, SHAPE.layers, SHAPE.vision_layers)
CARDS = [torch.device("cuda", n) for n in range(4)]  # only named, never touched
LAYER = "language_model.model.layers"


@cache
def sizes() -> dict[str, int]:
    """Bytes of the 13B model's tensors in fp16."""
    made = spread._outline(CONFIG, FP16)
    return {name: p.nbytes for name, p in made.named_parameters()}


def placed(*gigabytes: float) -> Placement:
    """The 13B model over devices with so much free."""
    free = [int(size * GB) for size in gigabytes]
    return spread.spread(CONFIG, SHAPE.context, FP16, CARDS[: len(free)], "13B", free)


def conversations(place: Placement, *gigabytes: float) -> list[int]:
    """For how many conversations' keys and values each device has room beside its weights."""
    held = Counter[torch.device]()
    for name, size in sizes().items():
        held[place.of(name)] += size
    each = 2 * SHAPE.width * (SHAPE.context + 1) * 2
    layers = place.layers(CONFIG)
    return [
        int(0.8 * (size * GB - held[device]) / (layers[device] * each))
        for device, size in zip(CARDS, gigabytes, strict=False)
    ]


def test_weights_of_8_bits_take_half_where_they_are_kept() -> None:
    """A CPU keeps them, CUDA does not; neither is touched."""
    config = shapes._config(SHAPE, SHAPE.layers, SHAPE.vision_layers)
    config.instructblip_quantised = "int8"
    free = [10 * GB, 10 * GB]
    kept = [torch.device("cpu", n) for n in range(2)]
    place = spread.spread(config, SHAPE.context, FP16, kept, "13B", free)
    assert sum(place.layers(config).values()) == SHAPE.layers
    assert set(place.layers(config)) == set(kept)
    for given, devices in ((config, CARDS[:2]), (CONFIG, kept)):
        with pytest.raises(OutOfMemory):
            spread.spread(given, SHAPE.context, FP16, devices, "13B", free)


@pytest.mark.parametrize(
    ("free", "least"),
    [((32, 32), 16), ((24, 24), 9), ((16, 40), 12), ((40, 16), 13), ((16, 16, 16), 8),
     ((32, 32, 32, 32), 40), ((30, 5, 10), 7)],
)  # fmt: skip
def test_13b_is_spread_by_what_is_free(free: tuple[int, ...], least: int) -> None:
    place = placed(*free)
    on = [place.of(f"{LAYER}.{n}") for n in range(SHAPE.layers)]
    assert on == sorted(on, key=CARDS.index)
    assert set(on) == set(CARDS[: len(free)])
    assert min(conversations(place, *free)) >= least


def test_layers_are_whole_and_what_comes_before_them_is_on_the_first() -> None:
    place = placed(32, 32)
    assert list(place.layers(CONFIG).values()) == [18, 22]
    for name in sizes():
        if name.startswith(LAYER):
            number = name.removeprefix(f"{LAYER}.").partition(".")[0]
            assert place.of(name) == place.of(f"{LAYER}.{number}"), name
        elif not name.startswith(("language_model.model.norm", "language_model.lm_head")):
            assert place.of(name) == CARDS[0], name
    assert place.of("language_model.lm_head.weight") == place.of(f"{LAYER}.39") == CARDS[1]


@pytest.mark.parametrize("free", [(12, 12), (2, 60), (28, 2)])
def test_too_little_memory_says_what_is_needed_and_what_each_has(free: tuple[int, ...]) -> None:
    with pytest.raises(OutOfMemory) as caught:
        placed(*free)
    said = str(caught.value)
    assert "The weights of 13B take 28.8 GB in float16" in said
    assert "one conversation 1.7 GB" in said
    for device, size in zip(CARDS, free, strict=False):
        assert f"{device} has {size * GB / 1e9:.1f} GB free" in said
    assert "name more devices in --device" in said


def test_one_device_gets_all() -> None:
    place = spread.spread(CONFIG, SHAPE.context, FP16, [torch.device("cpu")], "13B")
    assert {place.of(name) for name in sizes()} == {torch.device("cpu")}


@pytest.mark.parametrize(
    "wish", ["npu:0,npu:0", "npu:0,cpu", "npu:0,npu", "npu:0,", "cpu,cpu", "npu:0,cuda:1", "a,b"]
)
def test_devices_that_cannot_share_a_model_are_named(wish: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_devices(wish)
    assert caught.value.code == "device_unknown"
    assert repr(wish) in str(caught.value)
    assert "npu:0,npu:1" in str(caught.value)


def test_devices_that_are_not_here() -> None:
    with pytest.raises(DeviceError, match="'cuda:91' was asked for"):
        choose_devices("cuda:90, cuda:91")
    assert choose_devices("cpu") == (torch.device("cpu"),)


def test_a_forward_over_several_devices_is_not_recorded() -> None:
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    assert can_capture(first)
    assert not can_capture(first, second)


def test_the_device_with_the_least_room_for_its_layers_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {"cpu": 10, "meta": 40}
    monkeypatch.setattr(spread, "kv_memory", lambda device: free[device.type])
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert spread.cache_memory([cpu, cpu, meta]) == 15
    assert spread.cache_memory([cpu] + [meta] * 9) == 44
    assert spread.cache_memory([cpu, cpu]) == 10


def test_a_forward_goes_on_where_the_layers_are(tiny_model: InstructBlip) -> None:
    """The device without memory stands for the second one: it refuses numbers of the first."""
    llm = tiny_model.weights.language_model
    for module in (*llm.model.layers[1:], llm.model.norm, llm.lm_head):
        module.to("meta")
    places = spread.connect(tiny_model.weights)
    assert [place.type for place in places] == ["cpu", "meta", "meta"]
    arena = Arena(CacheShape.of(tiny_model.text_config), 2, 255, tiny_model.dtype, places)
    assert [keys.device for keys in arena.keys] == [values.device for values in arena.values]
    assert [keys.device for keys in arena.keys] == list(places)
    ragged, lengths = RaggedAttention(arena, [Span(0, 0, 5)]), torch.tensor([5, 255])
    hidden = tiny_model.run(tiny_model.embed([5] * 5)[None], torch.arange(5)[None], ragged)
    assert (hidden.device.type, hidden.shape[1]) == ("meta", 5)
    static = StaticAttention(arena, 255, lengths)
    hidden = tiny_model.run(tiny_model.embed([5, 6])[:, None], static.positions, static)
    gone = weakref.ref(ragged)
    del ragged
    assert gone() is None  # nothing of an earlier forward is kept
    assert (hidden.device.type, hidden.shape[:2]) == ("meta", (2, 1))
    assert arena.keys[0][0, :, :5].abs().sum() > 0


def test_on_one_device_nothing_is_added(tiny_model: InstructBlip) -> None:
    assert tiny_model.devices == (torch.device("cpu"),)
    hooked = [m for m in tiny_model.weights.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not hooked
