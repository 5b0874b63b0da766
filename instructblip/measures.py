"""The measurements behind ``python -m instructblip bench``."""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from instructblip.bench import Clock, Table
from instructblip.conversation import ImageSegment, build_prompt
from instructblip.engine.base import PastTurn, Request, SamplingParams
from instructblip.engine.kv_cache import Arena, CacheShape, Slot
from instructblip.engine.local import LocalEngine
from instructblip.engine.steps import Piece, RaggedStep, StaticStep, Stepper
from instructblip.engine.stream import LocalStream
from instructblip.images import open_upright
from instructblip.model import InstructBlip
from instructblip.scenes import compose
from instructblip.weight_kinds import kinds, of_kind, served, weight_bytes

ONE = SamplingParams(max_new_tokens=1)
QUESTION, ANSWER = 20, 80  # tokens of a turn
PREFILL = 160  # positions
SERVED, PROMPT = (
    64,
    40,
)  # tokens of an answer through the engine, and of a prompt but for its question
_MARKS = itertools.count()


def turns(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Time to the first token at each turn: our engine, and transformers from scratch."""
    kind, mine = served(model, args)
    table = Table(
        "turns", ("layout", "turn", "prompt tokens", "ours ms", "transformers ms", "times sooner"),
        note=f"first token, questions of {QUESTION} and answers of {ANSWER} tokens; our weights {kind}",
    )  # fmt: skip
    picture = _picture()
    engine = LocalEngine(mine, slots=1, batch=1)
    try:
        engine.register_picture("p", picture)
        for layout in args.layouts:
            for turn in args.turns:
                history = _history(model, turn - 1)
                question = _text(model, QUESTION, 99)
                request = Request("r", question, "p", history, ONE, layout=layout)
                if len(build_prompt(request, model.properties, model.vocabulary).segments) == 0:
                    continue
                ours, theirs = _first_tokens(model, engine, clock, request, picture, args.repeats)
                prompt = len(build_prompt(request, model.properties, model.vocabulary))
                table.rows.append((layout, turn, prompt, ours * 1e3, theirs * 1e3, theirs / ours))
    finally:
        engine.close()
    return table


def _first_tokens(
    model: InstructBlip, engine: LocalEngine, clock: Clock, request: Request, picture: bytes,
    repeats: int,
) -> tuple[float, float]:  # fmt: skip
    """Medians of ours, after the turns before were answered, and of transformers'.

    The first turn comes with a picture that the engine has not seen.
    """
    ours, theirs = [], []
    other = Request("r", "#", "p", request.history, ONE, layout=request.layout)
    for _ in range(repeats + 1):
        # What the turns before leave in the slot; then the question that is measured.
        if request.history:
            _answer(engine, other)
        else:
            seen = f"p{next(_MARKS)}"
            engine.register_picture(seen, picture)
            request = replace(request, picture_id=seen)
        mark = f"{next(_MARKS)} "  # no Q-Former result of this question is known yet
        fresh = mark + request.question[len(mark) :]
        mine = replace(request, question=fresh)
        ours.append(clock.time(partial(_answer, engine, mine)))
        theirs.append(clock.time(partial(from_scratch, model, mine, picture)))
    return statistics.median(ours[1:]), statistics.median(theirs[1:])


def _answer(engine: LocalEngine, request: Request) -> None:
    last = list(engine.submit(request))[-1]
    if last.error is not None:
        raise last.error


@torch.inference_mode()
def from_scratch(model: InstructBlip, request: Request, picture: bytes) -> None:
    """ViT, Q-Former for each image segment, and transformers' generate over the whole prompt."""
    features = model.encode_image(open_upright(picture))
    segments = build_prompt(request, model.properties, model.vocabulary).segments
    parts = [
        model.query(features, s.qformer_text) if isinstance(s, ImageSegment) else model.embed(s.ids)
        for s in segments
    ]
    embeds = torch.cat(parts)[None]
    model.weights.language_model.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
        max_new_tokens=request.sampling.max_new_tokens, do_sample=False, pad_token_id=0,
    )  # fmt: skip


def spare_output_copy(model: InstructBlip) -> None:
    """Let transformers' prefill off a copy of the whole output layer.

    torch makes it (1.3 s for Vicuna-7B's on a CPU) where the last position is a view of a longer
    sequence. Without it the comparison says what caches, batches and kernels gain.
    """
    output = model.weights.language_model.get_output_embeddings()
    output.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].clone(memory_format=torch.contiguous_format),)
    )


def batch(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Tokens a second of sessions of unlike lengths together, and of transformers one at a time."""
    table = Table("batch", (
        "sessions", "ours tokens/s", "through the engine", "transformers tokens/s",
        "join, share of a step", "branch, share of a step", "times",
    ))  # fmt: skip
    kind, mine = served(model, args)
    for count in args.batches:
        arena, slots = filled(model, _lengths(count, args.context), spare=1)
        step = stepper(mine, arena)
        caches = [their_cache(model, arena, slot) for slot in slots]
        pieces = [Piece(slot, token=7) for slot in slots]

        def theirs(caches: Sequence[DynamicCache] = caches) -> None:
            for cache in caches:
                their_step(model, cache)

        one, two, *joins = clock.medians(
            args.repeats, partial(step.run, pieces), theirs,
            partial(_join, arena, []), partial(_join, arena, slots[-1].keys),
        )  # fmt: skip
        del arena, slots, step, caches, pieces
        whole = _through_engine(model, count, args) if model.device.type != "cpu" else "-"
        shares = (seconds / one for seconds in joins)
        table.rows.append((count, count / one, whole, count / two, *shares, two / one))
    low, high = args.context
    table.note = f"decode, contexts of {low} to {high} tokens; our weights {kind}"
    return table


def _through_engine(model: InstructBlip, count: int, args: argparse.Namespace) -> float:
    """Tokens a second that streams see together while all of them run."""
    params = SamplingParams(
        max_new_tokens=SERVED, min_new_tokens=SERVED, repetition_penalty=1.5
    )  # fmt: skip
    lengths = [max(length - SERVED - PROMPT, 1) for length in _lengths(count, args.context)]
    engine = LocalEngine(model, slots=count, batch=count)
    engine.register_picture("p", _picture())
    rates = []
    try:
        for lap in range(3):  # the first records the graphs
            texts = [_text(model, length, n + count * lap) for n, length in enumerate(lengths)]
            asked = [Request(str(n), text, "p", sampling=params) for n, text in enumerate(texts)]
            # One loop reads all, as in the server.
            times = asyncio.run(_all_arrivals([engine.submit(request) for request in asked]))
            began, ended = max(t[0] for t in times), min(t[-1] for t in times)
            rates.append(sum(sum(began < at <= ended for at in t) for t in times) / (ended - began))
    finally:
        engine.close()
    return statistics.median(rates[1:])


async def _all_arrivals(streams: Sequence[LocalStream]) -> list[list[float]]:
    return await asyncio.gather(*map(_arrivals, streams))


async def _arrivals(stream: LocalStream) -> list[float]:
    """When each token came."""
    times: list[float] = []
    async for delta in stream:
        if delta.error is not None:
            raise delta.error
        times += [time.monotonic()] * len(delta.token_ids)
    return times


def _join(arena: Arena, shared: Sequence[Hashable]) -> None:
    """A session joins and leaves; one that shares a beginning is a branch, the one slot copy there is."""
    taken = arena.take([*shared, "new"])
    assert taken is not None
    slot, _ = taken
    slot.busy = False
    arena.cut(slot, 0)


def stepper(model: InstructBlip, arena: Arena) -> Stepper:
    return (RaggedStep if model.device.type == "cpu" else StaticStep)(model, arena)


def decode(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Tokens a second at batch 1 with each kind of weights, and the share of the bandwidth."""
    limit = bandwidth(model, clock, args.repeats)
    arena, (slot, *_) = filled(model, [args.context[0]])
    cache = their_cache(model, arena, slot)
    table = Table(
        "decode", ("weights", "ours tokens/s", "transformers tokens/s", "of the bandwidth", "times"),
        note=f"batch 1, {args.context[0]} tokens of context; bandwidth read {limit / 1e9:.1f} GB/s",
    )  # fmt: skip
    for name in kinds(model, args):
        mine = of_kind(name, model, args)
        step = stepper(mine, arena)
        one, two = clock.medians(
            args.repeats,
            partial(step.run, [Piece(slot, token=7)]),
            partial(their_step, model, cache),
        )
        share = weight_bytes(mine.weights.language_model) / one / limit
        table.rows.append((name, 1 / one, 1 / two, share, two / one))
    return table


def prefill(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Milliseconds of a prefill into an empty slot, with each kind of weights."""
    arena, (slot,) = filled(model, [1])
    embeds = model.embed([7] * PREFILL)
    table = Table(
        "prefill", ("weights", "ours ms", "transformers ms", "times"), note=f"{PREFILL} positions"
    )
    for name in kinds(model, args):
        step = stepper(of_kind(name, model, args), arena)

        def ours(step: Stepper = step) -> None:
            arena.cut(slot, 0)
            step.run([Piece(slot, embeds)])

        one, two = clock.medians(args.repeats, ours, partial(_their_prefill, model, embeds))
        table.rows.append((name, one * 1e3, two * 1e3, two / one))
    return table


@torch.inference_mode()
def _their_prefill(model: InstructBlip, embeds: Tensor) -> None:
    model.weights.language_model(inputs_embeds=embeds[None], use_cache=True, logits_to_keep=1)


def bandwidth(model: InstructBlip, clock: Clock, repeats: int) -> float:
    """Bytes a second that this device reads from its memory: the sum of 256 MiB."""
    big = torch.ones(1 << 26, dtype=torch.float32, device=model.device)
    (seconds,) = clock.medians(repeats, lambda: big.sum())
    return big.numel() * 4 / seconds


def start(args: argparse.Namespace) -> Table:
    """Seconds to load and peak memory of a process that does only that."""
    source = (
        f"import resource, time, torch; torch.set_num_threads(1); began = time.perf_counter(); "
        f"import instructblip; model = instructblip.load({args.model!r}, device={args.device!r}, "
        f"dtype={args.dtype!r}, prepack=False); spent = time.perf_counter() - began; "
        "anonymous = [int(line.split()[1]) for line in open('/proc/self/status') "
        "if line.startswith('RssAnon')][0]; "
        "print(spent, anonymous * 1024, "
        "sum(p.numel() * p.element_size() for p in model.weights.parameters()))"
    )
    idle = "import torch, transformers; from transformers import InstructBlipForConditionalGeneration; print(0, [int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon')][0] * 1024, 1)"
    laps = [_child(source) for _ in range(args.repeats)]
    base = statistics.median(_child(idle)[1] for _ in range(args.repeats))
    seconds, anonymous, weights = (statistics.median(lap[k] for lap in laps) for k in range(3))
    table = Table(
        "start", ("model", "seconds", "weights MB", "anonymous MB above the imports", "share of the weights"),
    )  # fmt: skip
    above = max(anonymous - base, 0)
    table.rows.append((args.model, seconds, weights / 1e6, above / 1e6, above / weights))
    return table


def _child(source: str) -> tuple[float, ...]:
    out = subprocess.run(
        [sys.executable, "-c", source], check=True, capture_output=True, text=True
    ).stdout
    return tuple(float(word) for word in out.split()[-3:])


def soak(model: InstructBlip, clock: Clock, args: argparse.Namespace) -> Table:
    """Eight streams at once for a while; the longest time that a stream saw nothing new."""
    engine = LocalEngine(model)
    longest_question = min(200, model.properties.context_length // 4)
    picture, ended = _picture(), time.monotonic() + args.seconds
    stalls: list[float] = []
    tokens = answers = 0
    try:
        engine.register_picture("p", picture)

        def talk(n: int) -> tuple[float, int, int]:
            longest, said, done = 0.0, 0, 0
            rng = random.Random(n)
            while time.monotonic() < ended:
                request = Request(
                    str(n), _text(model, rng.randrange(5, longest_question), n), "p",
                    sampling=SamplingParams(max_new_tokens=64),
                )  # fmt: skip
                mark = None
                for delta in engine.submit(request):
                    if delta.error is not None:
                        raise delta.error
                    now = time.monotonic()
                    if delta.token_ids:
                        longest = max(longest, now - mark if mark else 0.0)
                        mark, said = now, said + len(delta.token_ids)
                done += 1
            return longest, said, done

        with ThreadPoolExecutor(8) as pool:
            for longest, said, done in pool.map(talk, range(8)):
                stalls.append(longest)
                tokens, answers = tokens + said, answers + done
    finally:
        engine.close()
    table = Table("soak", ("streams", "seconds", "answers", "tokens/s", "longest stall s"))
    table.rows.append((8, args.seconds, answers, tokens / args.seconds, max(stalls)))
    return table


def _picture() -> bytes:
    out = io.BytesIO()
    compose(5, count=3).image.save(out, "PNG")
    return out.getvalue()


def _text(model: InstructBlip, tokens: int, seed: int) -> str:
    """Words that come to ``tokens`` ids or a few less."""
    words = random.Random(seed)
    text = ""
    while len(model.tokenizer.encode(text)) < tokens:
        text += words.choice("abcdefghij")
    return text


def _history(model: InstructBlip, count: int) -> tuple[PastTurn, ...]:
    rng = random.Random(3)
    made = []
    for n in range(count):
        question = _text(model, QUESTION, n)
        ids = tuple(rng.randrange(3, model.tokenizer.size) for _ in range(ANSWER))
        made.append(PastTurn(str(n), question, "p", ids, "", question))
    return tuple(made)


def _lengths(count: int, context: Sequence[int]) -> list[int]:
    low, high = context
    return [low + (high - low) * n // max(count - 1, 1) for n in range(count)]


def filled(model: InstructBlip, lengths: Sequence[int], spare: int = 0) -> tuple[Arena, list[Slot]]:
    """An arena whose slots hold random keys and values of these lengths, and ``spare`` empty ones.

    Requests run on all that hold something.
    """
    arena = Arena(
        CacheShape.of(model.text_config), len(lengths) + spare, model.properties.context_length,
        model.dtype, model.layer_devices,
    )  # fmt: skip
    for slot, length in zip(arena.slots, lengths, strict=False):
        for buffer in (*arena.keys, *arena.values):
            buffer[slot.row, :, :length].normal_()
        arena.extend(slot, [(slot.row, n) for n in range(length)])
        slot.busy = True
    return arena, arena.slots[: len(lengths)]


def their_cache(model: InstructBlip, arena: Arena, slot: Slot) -> DynamicCache:
    cache, length = DynamicCache(), len(slot.keys)
    for layer, (keys, values) in enumerate(zip(arena.keys, arena.values, strict=True)):
        cache.update(
            keys[slot.row : slot.row + 1, :, :length].clone(),
            values[slot.row : slot.row + 1, :, :length].clone(),
            layer,
        )
    return cache


@torch.inference_mode()
def their_step(model: InstructBlip, cache: DynamicCache) -> None:
    ids = torch.tensor([[7]], device=model.device)
    model.weights.language_model(input_ids=ids, past_key_values=cache, use_cache=True)
