"""Cases on the simulated NPU: each does the same on npu and on the CPU, and returns both."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

import instructblip
from instructblip.engine.base import Delta, PastTurn, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.model import InstructBlip
from instructblip.terminal import TerminalChat
from tests.tiny import make_checkpoint
from tests.tiny_picture import picture
from webui.__main__ import load_engine
from webui.settings import read_settings

PROPERTIES = {
    "name": "tiny", "template": "plain", "default_layout": "append", "query_tokens": 4,
    "image_size": 28, "qformer_text": "question_then_history", "qformer_max_tokens": 32,
    "qformer_truncation": "right", "context_length": 256, "generation": {"max_new_tokens": 8},
}  # fmt: skip
QUESTIONS = ("what is in the picture", "where is the red cat", "how many dogs are there")
DEVICES = ("npu", "cpu")


@cache
def folder() -> Path:
    """The tiny checkpoint of this process."""
    return make_checkpoint(Path(tempfile.mkdtemp()) / "tiny", properties=dict(PROPERTIES))


def load(device: str, dtype: str = "fp32") -> InstructBlip:
    """The tiny model."""
    return instructblip.load(folder(), device=device, dtype=dtype)


@contextmanager
def engine(device: str, dtype: str = "fp32", **options: Any) -> Iterator[LocalEngine]:
    """An engine over the tiny model, with one picture, closed at the end."""
    made = LocalEngine(load(device, dtype), kv_memory=64 << 20, **options)
    made.register_picture("p", picture())
    try:
        yield made
    finally:
        made.close()


def last(stream: Any) -> Delta:
    """The end of an answer; an error is raised."""
    end: Delta = list(stream)[-1]
    if end.error is not None:
        raise end.error
    return end


def request(question: str, history: tuple[PastTurn, ...] = (), **sampling: Any) -> Request:
    """A question about the picture."""
    params = SamplingParams(**{"max_new_tokens": 8, **sampling})
    return Request(f"{question}{len(history)}", question, "p", history, params)


def three_turns(layout: str, dtype: str = "fp32") -> dict[str, list[tuple[int, ...]]]:
    """A chat of three turns in a layout."""
    answers = {}
    for device in DEVICES:
        with engine(device, dtype, static=True) as made:
            history: tuple[PastTurn, ...] = ()
            for question in QUESTIONS:
                asked = request(question, history, repetition_penalty=1.5)
                end = last(made.submit(Request(asked.request_id, question, "p", history,
                                               asked.sampling, layout)))  # fmt: skip
                history += (PastTurn(question, question, "p", end.answer_ids, "", end.qformer_text,
                                     made.card.tokenizer),)  # fmt: skip
            answers[device] = [turn.answer_ids for turn in history]
    return answers


def encodings() -> dict[str, float]:
    """The largest difference of picture features and image tokens between npu and CPU."""
    from instructblip.images import open_upright

    made = {}
    for device in DEVICES:
        model = load(device)
        features = model.encode_image(open_upright(picture()))
        made[device] = features.embeds.cpu(), model.query(features, QUESTIONS[0]).cpu()
    pairs = zip(*made.values(), strict=True)
    return {
        k: float((a - b).abs().max()) for k, (a, b) in zip(("vit", "query"), pairs, strict=True)
    }


def ragged_batch() -> dict[str, list[tuple[int, ...]]]:
    """Six chats of unlike lengths at once through the static step."""
    answers = {}
    for device in DEVICES:
        with engine(device, static=True, slots=6) as made:
            streams = [
                made.submit(request(" ".join(QUESTIONS[: 1 + n % 3]) + str(n), max_new_tokens=4 + n,
                                    repetition_penalty=1.5))
                for n in range(6)
            ]  # fmt: skip
            answers[device] = [last(stream).answer_ids for stream in streams]
            answers[device].append((made.statistics()["units"]["decode"],))
    # What shares a forward hangs on time, so the count of forwards is looked at, not compared.
    counts = {device: answers[device].pop()[0] for device in DEVICES}
    npu = DEVICES[0]
    assert counts[npu] < sum(len(ids) for ids in answers[npu])
    return answers


def sampled() -> dict[str, Any]:
    """Sampling with a seed; ids and logarithms of probability."""
    answers = {}
    for device in DEVICES:
        with engine(device, static=True) as made:
            asked = request(QUESTIONS[0], temperature=2.0, top_p=0.95, top_k=50, seed=7,
                            logprobs=True)  # fmt: skip
            deltas = list(made.submit(asked))
            logprobs = [round(p, 3) for delta in deltas for p in delta.logprobs]
            answers[device] = [deltas[-1].answer_ids, logprobs]
    return answers


def beams() -> dict[str, tuple[int, ...]]:
    """LAVIS's beam search."""
    answers = {}
    for device in DEVICES:
        with engine(device, static=True) as made:
            asked = request(QUESTIONS[1], num_beams=3, repetition_penalty=1.5)
            answers[device] = last(made.submit(asked)).answer_ids
    return answers


def generated() -> dict[str, Any]:
    """``model.generate`` and ``predict_class`` as a library."""
    from PIL import Image

    seen = Image.new("RGB", (40, 30), (30, 90, 200))
    answers = {}
    for device in DEVICES:
        model = load(device)
        texts = model.generate([seen, seen], list(QUESTIONS[:2]), max_length=8, num_beams=2)
        ranks, _ = model.predict_class([seen], QUESTIONS[0], ["yes", "a red cat", "no"])
        answers[device] = [texts, ranks]
    return answers


def cancelled() -> dict[str, Any]:
    """Stop after the first token, and a whole answer afterwards."""
    with engine("npu", static=True) as made:
        stream = made.submit(request(QUESTIONS[0], max_new_tokens=200))
        seen = 0
        for delta in stream:
            if delta.token_ids and not seen:
                stream.cancel()
            seen += len(delta.token_ids)
            end = delta
        after = last(made.submit(request(QUESTIONS[1])))
        return {"finish": str(end.finish), "tokens": seen, "after": len(after.answer_ids)}


def unloaded() -> dict[str, int]:
    """Bytes of the device before loading, loaded, and after unloading."""
    import gc

    gc.collect()
    before = torch.npu.memory_allocated()
    model = load("npu")
    loaded = torch.npu.memory_allocated()
    model.unload()
    del model
    gc.collect()
    return {"before": before, "loaded": loaded, "after": torch.npu.memory_allocated()}


def deferred() -> dict[str, list[float]]:
    """What the host sees of a copy before and after the stream is synchronised."""
    from instructblip.devices import synchronise

    on_device = torch.full((4,), 3.0, device="npu")
    host = torch.zeros(4, pin_memory=True)
    host.copy_(on_device, non_blocking=True)
    early = host.tolist()
    synchronise(on_device.device)
    return {"early": early, "late": host.tolist()}


def from_a_thread() -> dict[str, Any]:
    """The engine's thread is not the one that loaded the model; deltas come one by one."""
    with engine("npu", static=True) as made:
        deltas = list(made.submit(request(QUESTIONS[0], repetition_penalty=1.5)))
        tokens = [delta.token_ids for delta in deltas if delta.token_ids]
        return {"pieces": len(tokens), "longest": max(map(len, tokens)), "device": made.card.device}


def asked_of_the_host() -> dict[str, int]:
    """Copies and waits within a forward of the static step, on the device's own words."""
    from instructblip.engine.kv_cache import Arena, CacheShape
    from instructblip.engine.steps import StaticStep
    from tests.npu.compute import runtime

    model = load("npu")
    shape = CacheShape.of(model.text_config)
    step = StaticStep(model, Arena(shape, 4, 256, model.dtype, model.device))
    state = torch.tensor([[5, 6, 7, 8], [0] * 4]).to("npu")
    names = (b"aclrtMemcpy", b"aclrtMemcpyAsync", b"aclrtSynchronizeStream")
    step.forward(state, 256)
    before = [runtime.simulation_calls(name) for name in names]
    step.forward(state, 256)
    after = [runtime.simulation_calls(name) for name in names]
    return {n.decode(): b - a for n, a, b in zip(names, before, after, strict=True)}


def pages_engine_on_the_cpu(file: str, questions: list[str]) -> list[str]:
    """What the engine that the page starts says of a picture on the CPU, turn by turn."""
    made = load_engine(read_settings(["--model", "embedded", "--device", "cpu"], {}))
    try:
        chat = TerminalChat(made, made.card.generation, None, io.StringIO())
        chat.take_file(file)
        for question in questions:
            chat.ask(question)
        return [turn.answer.strip() for turn in chat.conversation.path()]
    finally:
        made.close()


def fallback() -> str:
    """What an operator without a kernel on the NPU says."""
    try:
        torch.arange(6.0).view(2, 3).to("npu").mode()
    except RuntimeError as error:
        return str(error)
    return ""


def operators() -> list[str]:
    """Every operator that the whole path runs on the NPU."""
    from tests.npu import compute, quantised

    quantised.three_turns("append", "fp16")  # 8-bit weights; empties the list first
    encodings()
    for layout in ("refresh", "keep", "append"):
        three_turns(layout, "fp16")
    for case in (ragged_batch, sampled, beams, generated, cancelled):
        case()
    return sorted(compute.used)
