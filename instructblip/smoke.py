"""``doctor --smoke``: models run on the device, compared with the CPU, and timed.

For the first person with a new kind of device: what is printed fits a page and says all that a
report needs. Nothing is downloaded.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from instructblip.ascend import explain
from instructblip.bench import Clock
from instructblip.checkpoints import EMBEDDED, load
from instructblip.devices import choose_dtype, free_memory, release_memory
from instructblip.diagnosis import Finding
from instructblip.engine.base import Request, SamplingParams
from instructblip.engine.kv_cache import Arena, CacheShape
from instructblip.engine.local import LocalEngine
from instructblip.engine.steps import Piece, RaggedStep, StaticStep, Stepper
from instructblip.errors import InstructBlipError
from instructblip.limits import AIM, Chip, Work, chip_named, decode_limit
from instructblip.model import InstructBlip
from instructblip.scenes import compose

EXAMPLES = EMBEDDED.parent / "examples"
QUESTION = "What is on the left?"
STEPS = 16  # decoded tokens that are compared
CONTEXT = 500  # tokens, of the timed decode steps
BATCHES = (1, 8)
FULL_SIZE, FULL_NAME = 7_900_000_000, "vicuna-7b"
# Weights in half precision and what runs beside them; and 1.1 GB of keys and values for each row.
FULL_MEMORY, FULL_ROW = 17e9, 1.1e9
# Largest difference of the logits, as a share of the largest logit. In fp32 a device may multiply
# in a shorter format (TF32, HF32); the others are some rounding steps of 8 and 11 bits.
TOLERANCES = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_FALLBACK = re.compile(r"operator '([\w:.]+)' is not currently supported.*fall back to run")


def smoke(device: torch.device, dtype: str = "auto") -> Iterator[Finding]:
    """All parts; one that fails is told, and the next goes on."""
    half = choose_dtype(dtype, device, FULL_SIZE)
    fallen: set[str] = set()
    parts: tuple[Callable[[torch.device, torch.dtype], Iterator[Finding]], ...] = (
        agreement, answers, speed,
    )  # fmt: skip
    for part in parts:
        yield from _watched(part, device, half, fallen)
        release_memory(device)
    if device.type != "cpu":
        yield _fallbacks(device, fallen)


def _watched(
    part: Callable[[torch.device, torch.dtype], Iterator[Finding]], device: torch.device,
    dtype: torch.dtype, fallen: set[str],
) -> list[Finding]:  # fmt: skip
    """A part's findings, its failure included; operators that ran on the CPU go to ``fallen``."""
    found: list[Finding] = []
    with _stderr_copied() as said:
        try:
            found.extend(part(device, dtype))
        except (InstructBlipError, RuntimeError, MemoryError) as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            found.append(
                Finding(f"{part.__name__} failed ({words}). {explain(error) or ''}", False)
            )
    fallen.update(_FALLBACK.findall("".join(said)))
    return found


@contextmanager
def _stderr_copied() -> Iterator[list[str]]:
    """Fills the list, at the end, with what the process wrote to stderr; it is shown all the same.

    torch-npu warns of a fallback from C++, past Python's warnings. ``tee`` is a process of its own,
    so that nothing is lost if the device's driver ends this one.
    """
    said: list[str] = []
    with tempfile.NamedTemporaryFile("r", errors="replace") as file:
        tee = subprocess.Popen(["tee", file.name], stdin=subprocess.PIPE, stdout=2)
        assert tee.stdin is not None
        sys.stderr.flush()
        own = os.dup(2)
        os.dup2(tee.stdin.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)
            tee.stdin.close()
            tee.wait()
            said.append(file.read())


def _fallbacks(device: torch.device, fallen: set[str]) -> Finding:
    if fallen:
        return Finding(
            f"Operators that ran on the CPU instead: {', '.join(sorted(fallen))}.", False
        )
    return Finding(f"No operator fell back from {device} to the CPU.", True)


# --- a tiny model, layer by layer against the CPU ----------------------------------------------


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model made of one picture and question: ``logits`` [steps, vocabulary] in fp32."""

    features: Tensor
    image_tokens: Tensor
    logits: Tensor

    @property
    def ids(self) -> list[int]:
        """The likeliest token of each step."""
        return [int(n) for n in self.logits.argmax(-1)]


def agreement(device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    """A random model in fp32 on the CPU against the device in fp32, then in ``dtype``."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_tiny(Path(folder) / "tiny")
        expected = trace(load(tiny, device="cpu", dtype="fp32"), static=False)
        for kind in dict.fromkeys((torch.float32, dtype)):
            name = str(kind).removeprefix("torch.")
            seen = trace(load(tiny, device=str(device), dtype=name), forced=expected.ids)
            yield compare(expected, seen, name, TOLERANCES[kind])


def write_tiny(folder: Path) -> Path:
    """A checkpoint of two layers each with random weights and the embedded model's tokenizers."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    config = InstructBlipConfig.from_pretrained(EMBEDDED)
    for part in (config.vision_config, config.qformer_config, config.text_config):
        part.num_hidden_layers = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = InstructBlipForConditionalGeneration(config).float()
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the usual start is too flat for distinct answers
                torch.nn.init.normal_(parameter, std=0.1)
    config.dtype = "float32"
    config.save_pretrained(folder)
    own = {t.data_ptr(): name for name, t in reversed(model.state_dict().items())}  # tied ones once
    tensors = {name: t for name, t in model.state_dict().items() if own[t.data_ptr()] == name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def trace(model: InstructBlip, *, static: bool = True, forced: Sequence[int] = ()) -> Trace:
    """Encode, query, prefill, then decode step by step, along ``forced`` ids if given."""
    features = model.encode_image(compose(5, count=3).image)
    image_tokens = model.query(features, QUESTION)
    prompt = torch.cat([image_tokens, model.embed(model.tokenizer.encode(QUESTION))])
    arena = _arena(model, 1, len(prompt) + STEPS)
    step: Stepper = (StaticStep if static else RaggedStep)(model, arena)
    (slot,) = arena.slots
    logits = step.run([Piece(slot, prompt)])
    arena.extend(slot, range(len(prompt)))
    seen = [logits]
    for n in range(STEPS - 1):
        token = forced[n] if forced else int(seen[-1].argmax())
        seen.append(step.run([Piece(slot, token=token)]).clone())
        arena.extend(slot, [n])
    words = model.tokenizer.size  # the rest is at minus infinity
    return Trace(
        features.embeds.float().cpu(), image_tokens.float().cpu(),
        torch.cat(seen)[:, :words].float().cpu(),
    )  # fmt: skip


def _arena(model: InstructBlip, rows: int, length: int) -> Arena:
    return Arena(CacheShape.of(model.text_config), rows, length, model.dtype, model.device)


def compare(expected: Trace, seen: Trace, name: str, tolerance: float) -> Finding:
    """Largest differences, as a share of the largest value; the logits' is judged."""
    shares = {
        what: float((a - b).abs().max() / a.abs().max())
        for what, a, b in (
            ("picture features", expected.features, seen.features),
            ("image tokens", expected.image_tokens, seen.image_tokens),
            ("logits", expected.logits, seen.logits),
        )
    }
    same = sum(a == b for a, b in zip(expected.ids, seen.ids, strict=True))
    told = ", ".join(f"{what} {share:.1e}" for what, share in shares.items())
    return Finding(
        f"Tiny random model in {name} against fp32 on the CPU: {told}; {same} of {STEPS} tokens "
        f"are the same (logits may differ by {tolerance:.0e}).",
        shares["logits"] <= tolerance,  # False for NaN too
    )


# --- the embedded model's answers --------------------------------------------------------------


def answers(device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    """What the embedded model says about the example pictures, here and on the CPU."""
    asked = _questions()
    ours = _ask(load("embedded", device=str(device), dtype=_name(device, dtype)), asked)
    theirs = _ask(load("embedded", device="cpu", dtype="fp32"), asked)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    # A near-tie may fall the other way in half precision.
    yield Finding(
        f"Embedded model: {same} of {len(asked)} answers are the CPU's.", same > 0.8 * len(asked)
    )
    for (file, question), mine, cpu in zip(asked, ours, theirs, strict=True):
        if mine != cpu:
            yield Finding(f"{file}: {question} Here: {mine!r}. On the CPU: {cpu!r}.")
    (file, question), answer = asked[0], ours[0]
    yield Finding(f"{file}: {question} {answer}")


def _name(device: torch.device, dtype: torch.dtype) -> str:
    """fp32 on a CPU, where the embedded model always runs so."""
    return "fp32" if device.type == "cpu" else str(dtype)


def _questions() -> list[tuple[str, str]]:
    """Picture and question, in both languages."""
    examples = json.loads((EXAMPLES / "examples.json").read_text("utf-8"))
    return [
        (example["file"], question)
        for example in examples
        for language in example["questions"].values()
        for question in language
    ]


def _ask(model: InstructBlip, asked: Sequence[tuple[str, str]]) -> list[str]:
    engine = LocalEngine(model, slots=1, batch=1)
    try:
        for file in {file for file, _ in asked}:
            engine.register_picture(file, (EXAMPLES / file).read_bytes())
        sampling = SamplingParams(max_new_tokens=48)
        return [
            _answer(engine, Request(str(n), question, file, sampling=sampling))[0]
            for n, (file, question) in enumerate(asked)
        ]
    finally:
        engine.close()


def _answer(engine: LocalEngine, request: Request) -> tuple[str, float, int]:
    """Text, seconds to the first token, and tokens of the prompt."""
    deltas = list(engine.submit(request))
    if (error := deltas[-1].error) is not None:
        raise error
    said = deltas[-1].statistics
    return "".join(delta.text for delta in deltas).strip(), said.first_token, said.prompt_tokens


# --- speed -------------------------------------------------------------------------------------


def speed(device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    """First token and decode, at full size with random weights where the memory suffices."""
    free = free_memory(device)
    name = ""
    if device.type != "cpu":
        name = str(getattr(torch, device.type).get_device_name(device))
    chip = chip_named(name)
    if free is not None and free >= FULL_MEMORY + FULL_ROW:
        from instructblip.shapes import random_model

        model = random_model(FULL_NAME, dtype=dtype, device=str(device))
        batches = [n for n in BATCHES if free >= FULL_MEMORY + n * FULL_ROW]
        yield Finding(f"Speed of {FULL_NAME}'s shapes with random weights in {dtype}:")
    else:
        model = load("embedded", device=str(device), dtype=_name(device, dtype))
        batches = list(BATCHES)
        chip = None  # so small a model waits for the host, not for the chip
        why = "on a CPU" if free is None else f"with {free / 1e9:.0f} GB free"
        yield Finding(f"Speed of the embedded model; the full size is left out {why}:")
    yield from measure(model, chip, batches)
    peak = getattr(getattr(torch, device.type), "max_memory_allocated", None)
    if peak is not None and device.type != "cpu":
        yield Finding(f"Most memory in use: {peak(device) / 1e9:.1f} GB.")


def measure(
    model: InstructBlip, chip: Chip | None, batches: Sequence[int] = BATCHES, repeats: int = 5
) -> Iterator[Finding]:
    """Times of a loaded model, and their shares of the chip's limit where that is known."""
    if chip is None:
        yield Finding("Shares of the limit on paper: only at full size, on a chip that is known.")
    seconds, tokens = _first_token(model, repeats)
    least = None if chip is None else first_token_limit(model, chip, tokens)
    yield _share(
        f"First token of a new picture and {tokens} tokens of prompt: {seconds * 1e3:.1f} ms",
        None if least is None else least / seconds,
        None if least is None else f"{least * 1e3:.1f} ms",
    )
    context = min(CONTEXT, model.properties.context_length // 2)
    for rows in batches:
        rate = rows / _step_time(model, rows, context, repeats)
        most = None
        if chip is not None:
            shape = CacheShape.of(model.text_config)
            weights = sum(p.nbytes for p in _read_each_token(model))
            most = decode_limit(chip, weights, shape.nbytes(context - 1, model.dtype), rows)
        yield _share(
            f"Decode, {rows} at once, {context} tokens of context: {rate:.1f} tokens/s",
            None if most is None else rate / most,
            None if most is None else f"{most:.0f} tokens/s",
        )


def _share(told: str, share: float | None, limit: str | None) -> Finding:
    if share is None:
        return Finding(f"{told}.")
    return Finding(
        f"{told}, {share:.0%} of the limit on paper, {limit} (aim {AIM:.0%}).",
        True if share >= AIM else None,
    )


def _first_token(model: InstructBlip, repeats: int) -> tuple[float, int]:
    """Median seconds of new pictures' first tokens, the first left out; tokens of the prompt."""
    engine = LocalEngine(model, slots=1, batch=1)
    try:
        laps = []
        for lap in range(repeats + 1):
            picture = io.BytesIO()
            compose(lap, count=3).image.save(picture, "PNG")
            engine.register_picture(str(lap), picture.getvalue())
            one = SamplingParams(max_new_tokens=1)
            _, seconds, tokens = _answer(engine, Request("r", QUESTION, str(lap), sampling=one))
            laps.append(seconds)
        return statistics.median(laps[1:]), tokens
    finally:
        engine.close()


def _step_time(model: InstructBlip, rows: int, context: int, repeats: int) -> float:
    """Median seconds of a decode step; the numbers in the cache are zeros, which takes as long."""
    arena = _arena(model, rows, context + 1)
    for slot in arena.slots:
        arena.extend(slot, range(context))
    step: Stepper = (RaggedStep if model.device.type == "cpu" else StaticStep)(model, arena)
    pieces = [Piece(slot, token=7) for slot in arena.slots]
    (seconds,) = Clock(model).medians(repeats, lambda: step.run(pieces))
    return seconds


def _read_each_token(model: InstructBlip) -> Iterator[Tensor]:
    """The language model's weights but for its embedding table, unless that is its output too."""
    llm = model.weights.language_model
    table, head = llm.get_input_embeddings().weight, llm.get_output_embeddings().weight
    for tensor in {id(t): t for t in (*llm.parameters(), *llm.buffers())}.values():
        if tensor is not table or table is head:
            yield tensor


def first_token_limit(model: InstructBlip, chip: Chip, tokens: int) -> float:
    """Seconds at least: ViT over its patches, Q-Former over its queries, prefill of ``tokens``."""
    vision = model.weights.vision_model
    positions = (model.properties.image_size // vision.config.patch_size) ** 2 + 1
    parts = (
        (list(vision.parameters()), positions),
        (
            [t for name, t in model.weights.qformer.named_parameters() if "embeddings" not in name],
            model.properties.query_tokens,
        ),
        (list(_read_each_token(model)), tokens),
    )
    return sum(
        Work(sum(t.nbytes for t in own), 2.0 * sum(t.numel() for t in own) * count).seconds(chip)
        for own, count in parts
    )
