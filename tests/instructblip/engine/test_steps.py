"""Ragged and static steps against transformers' own forward over each sequence alone."""

import pytest
import torch
from transformers import DynamicCache

from instructblip.engine import steps
from instructblip.engine.kv_cache import Arena, CacheShape
from instructblip.engine.steps import Piece, RaggedStep, StaticStep
from instructblip.model import InstructBlip

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
    lengths = arena.lengths.tolist()
    stepper.run([Piece(busy, token=9)])
    after = [b[:2, :, :255] for b in (*arena.keys, *arena.values)]
    assert all(
        torch.equal(one[0, :, :5], two[0, :, :5]) for one, two in zip(before, after, strict=True)
    )
    assert all(torch.equal(one[1], two[1]) for one, two in zip(before, after, strict=True))
    assert arena.lengths.tolist() == lengths


def test_half_precision_static_equals_ragged_closely(tiny_folder) -> None:
    import instructblip

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
    ids, active = torch.tensor([5, 6]), torch.tensor([True, False])

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the host was asked")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, asked)
    stepper.forward(ids, active, 64)


class Recorder:
    """Stands in for a device's module: a graph that runs the recorded forward again."""

    def __init__(self, model: InstructBlip) -> None:
        self.recorded = self.replayed = 0
        self._run, self._model = model.run, model

    def capture(self, forward, inputs):
        recorder = self
        recorder.recorded += 1

        class Graph:
            def __init__(self) -> None:
                self.inputs = [tensor.clone() for tensor in inputs]
                for _ in range(3):  # twice to warm up, once to record
                    forward(*self.inputs)

            def run(self, given):
                recorder.replayed += 1
                for held, tensor in zip(self.inputs, given, strict=True):
                    held.copy_(tensor)
                return forward(*self.inputs)

        return Graph()


def test_each_bucket_is_recorded_once_and_recording_changes_nothing(
    tiny_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU: what a recording reads and writes. The graphs themselves need a device."""
    recorder = Recorder(tiny_model)
    monkeypatch.setattr(steps, "can_capture", lambda device: True)
    monkeypatch.setattr(steps, "Captured", recorder.capture)
    arena = make_arena(tiny_model)
    stepper, ids, slot = StaticStep(tiny_model, arena), [5, 6, 7], arena.slots[0]
    stepper.run([Piece(slot, tiny_model.embed(ids))])
    arena.extend(slot, ids)
    for token in (8, 9, 10):
        ids.append(token)
        logits = stepper.run([Piece(slot, token=token)])
        arena.extend(slot, [token])
        torch.testing.assert_close(logits[0], reference(tiny_model, ids), atol=2e-4, rtol=1e-4)
    assert (recorder.recorded, recorder.replayed) == (1, 3)
    other = arena.slots[3]
    stepper.run([Piece(other, tiny_model.embed([4]))])
    arena.extend(other, [4])
    stepper.run([Piece(slot, token=3), Piece(other, token=5)])
    assert (recorder.recorded, recorder.replayed) == (2, 4)
