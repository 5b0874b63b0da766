"""Ragged and static steps against transformers' own forward over each sequence alone."""

from collections import Counter

import pytest
import torch
from transformers import DynamicCache

import instructblip
from instructblip import devices
from instructblip import model as model_module
from instructblip.engine import steps
from instructblip.engine.kv_cache import Arena, CacheShape
from instructblip.engine.steps import Piece, RaggedStep, StaticStep
from instructblip.images import open_upright
from instructblip.model import InstructBlip
from tests.tiny import picture

PROMPTS = ([5, 6, 7], list(range(20, 61)), [9], list(range(30, 42)))


def make_arena(model: InstructBlip, rows: int = 6) -> Arena:
    return Arena(CacheShape.of(model.text_config), rows, 255, model.dtype, model.device)


def reference(model: InstructBlip, ids: list[int]) -> torch.Tensor:
    """transformers' logits at the last position, from scratch."""
    with torch.inference_mode():
        out = model.weights.language_model(
            inputs_embeds=model.embed(ids)[None], past_key_values=DynamicCache()
        ).logits[0, -1]
        out[model.tokenizer.size :] = -torch.inf
    return out


@pytest.mark.parametrize("step", [RaggedStep, StaticStep])
def test_chunks_and_ragged_decoding_equal_each_sequence_alone(step, tiny_model) -> None:
    arena = make_arena(tiny_model)
    stepper = step(tiny_model, arena)
    slots = [arena.slots[row] for row in (3, 0, 4, 1)]
    texts = [list(p) for p in PROMPTS]
    for slot, ids in zip(slots, texts, strict=True):
        for at in range(0, len(ids), 16):  # in chunks
            part = ids[at : at + 16]
            logits = stepper.run([Piece(slot, tiny_model.embed(part))])
            arena.extend(slot, part)
        torch.testing.assert_close(logits[0], reference(tiny_model, ids), atol=2e-4, rtol=1e-4)
    for turn in range(3):
        for n, ids in enumerate(texts):
            ids.append(10 * turn + n + 3)
        pieces = [Piece(s, token=ids[-1]) for s, ids in zip(slots, texts, strict=True)]
        logits = stepper.run(pieces)
        for slot, ids, row in zip(slots, texts, logits, strict=True):
            arena.extend(slot, ids[-1:])
            torch.testing.assert_close(row, reference(tiny_model, ids), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("step", [RaggedStep, StaticStep])
def test_one_prefills_while_others_decode(step, tiny_model) -> None:
    arena = make_arena(tiny_model)
    stepper = step(tiny_model, arena)
    old, new = arena.slots[2], arena.slots[0]
    stepper.run([Piece(old, tiny_model.embed([5, 6]))])
    arena.extend(old, [5, 6])
    logits = stepper.run([Piece(old, token=7), Piece(new, tiny_model.embed([8, 9, 10]))])
    torch.testing.assert_close(logits[0], reference(tiny_model, [5, 6, 7]), atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(logits[1], reference(tiny_model, [8, 9, 10]), atol=2e-4, rtol=1e-4)


def test_a_static_step_leaves_idle_rows_as_they_are(tiny_model) -> None:
    arena = make_arena(tiny_model, rows=3)
    idle, full, busy = arena.slots
    stepper = StaticStep(tiny_model, arena)
    for slot, count in ((idle, 5), (full, 255), (busy, 4)):
        ids = [3 + n % 50 for n in range(count)]
        stepper.run([Piece(slot, tiny_model.embed(ids))])
        arena.extend(slot, ids)
    before = [b[:2, :, :255].clone() for b in (*arena.keys, *arena.values)]
    stepper.run([Piece(busy, token=9)])
    after = [b[:2, :, :255] for b in (*arena.keys, *arena.values)]
    assert all(
        torch.equal(one[0, :, :5], two[0, :, :5]) for one, two in zip(before, after, strict=True)
    )
    assert all(torch.equal(one[1], two[1]) for one, two in zip(before, after, strict=True))


def test_half_precision_static_equals_ragged_closely(tiny_folder) -> None:
    model = instructblip.load(tiny_folder, device="cpu", dtype="bf16")
    rows = []
    for step in (RaggedStep, StaticStep):
        arena = make_arena(model)
        stepper = step(model, arena)
        slot = arena.slots[1]
        stepper.run([Piece(slot, model.embed([4, 5, 6]))])
        arena.extend(slot, [4, 5, 6])
        rows.append(stepper.run([Piece(slot, token=7)])[0, : model.tokenizer.size])
    assert (rows[0] - rows[1]).abs().max() < 0.05 * rows[0].abs().max()


def test_a_static_forward_asks_the_host_nothing(
    tiny_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ``.item()``, ``.tolist()`` or branch on a tensor: a graph could be captured."""
    arena = make_arena(tiny_model)
    stepper = StaticStep(tiny_model, arena)
    state, place = torch.tensor([[5, 6], [0, arena.length]]), torch.tensor([1, 0, 3])
    embeds = torch.zeros(32, tiny_model.text_config.hidden_size)

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the host was asked")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, asked)
    stepper.forward(state, 64)
    stepper.chunk(place, embeds, 64)


class Recorder:
    """Stands in for a device's graphs: one that runs the recorded forward again."""

    def __init__(self, forward, inputs, pool) -> None:
        count["recorded"] += 1
        self.forward, self.inputs = forward, [tensor.clone() for tensor in inputs]
        for _ in range(3):  # twice to warm up, once to record
            forward(*self.inputs)

    def run(self, given):
        count["replayed"] += 1
        for held, tensor in zip(self.inputs, given, strict=True):
            held.copy_(tensor)
        return self.forward(*self.inputs)


count: Counter[str] = Counter()


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Forwards are recorded on the CPU as they are on a device; the graphs need a real one."""
    count.clear()
    for place in (devices, steps, model_module):
        monkeypatch.setattr(place, "can_capture", lambda device: True)
    monkeypatch.setattr(devices, "Captured", Recorder)
    monkeypatch.setattr(torch.cpu, "graph_pool_handle", lambda: None, raising=False)
    return count


def test_each_shape_is_recorded_once_and_recording_changes_nothing(tiny_folder, recording) -> None:
    model = instructblip.load(tiny_folder, device="cpu")
    arena = make_arena(model)
    stepper, ids, slot = StaticStep(model, arena), [5, 6, 7], arena.slots[0]
    stepper.run([Piece(slot, model.embed(ids))])
    arena.extend(slot, ids)
    for token in (8, 9, 10):
        ids.append(token)
        logits = stepper.run([Piece(slot, token=token)])
        arena.extend(slot, [token])
        torch.testing.assert_close(logits[0], reference(model, ids), atol=2e-4, rtol=1e-4)
    assert recording == {"recorded": 2, "replayed": 4}
    other = arena.slots[3]
    stepper.run([Piece(other, model.embed([4]))])  # the same shape as the first chunk
    arena.extend(other, [4])
    stepper.run([Piece(slot, token=3), Piece(other, token=5)])
    assert recording == {"recorded": 3, "replayed": 6}


@pytest.mark.parametrize("sizes", [(3,), (40, 7, 1), (31, 1, 32, 33), (90, 64), (128, 120, 5)])
def test_chunks_of_a_fixed_shape_give_the_ragged_result(tiny_folder, recording, sizes) -> None:
    model = instructblip.load(tiny_folder, device="cpu")
    arena = make_arena(model)
    stepper, slot, ids = StaticStep(model, arena), arena.slots[2], []
    other = arena.slots[1]
    stepper.run([Piece(other, model.embed([9, 8]))])
    arena.extend(other, [9, 8])
    for size in sizes:
        new = [3 + (len(ids) + n) % 50 for n in range(size)]
        logits = stepper.run([Piece(slot, model.embed(new)), Piece(other, token=7)])
        arena.extend(slot, new)
        ids += new
        torch.testing.assert_close(logits[0], reference(model, ids), atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(logits[1], reference(model, [9, 8, 7]), atol=2e-4, rtol=1e-4)


def test_a_recorded_picture_and_instruction_give_the_plain_image_tokens(
    tiny_folder, tiny_model, recording
) -> None:
    model = instructblip.load(tiny_folder, device="cpu")
    image = open_upright(picture())
    for text in ("what is it", "what is on the left of the big red dog and the cat", "a"):
        ids = torch.tensor([tiny_model.qformer_ids(text)])
        with torch.inference_mode():  # past the graphs
            want = tiny_model._qformer(tiny_model._vision(tiny_model.pixels(image)), ids)
        made = model.query(model.encode_image(image), text)
        torch.testing.assert_close(made, want, atol=2e-5, rtol=1e-4)
    assert recording["replayed"] == 6
    assert recording["recorded"] < 6  # lengths are rounded up
