"""The Engine protocol and its messages: plain, picklable, free of torch.

A :class:`Request` carries all that a fresh engine needs to answer: the path of turns from the
root, the new question, picture ids, parameters and a deadline. Nothing in it refers to state
inside one engine, so any replica may serve it (picture bytes are fetched on a miss).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from instructblip.errors import BadParameter


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # the end token, or a stop string
    LENGTH = "length"  # max_new_tokens, or the context is full
    CANCELLED = "cancelled"  # Stop was pressed, or nobody was attached any more
    DEADLINE = "deadline"
    ERROR = "error"


class Phase(StrEnum):
    """Where a request is."""

    WAITING = "waiting"
    ENCODING = "encoding"  # ViT and Q-Former
    PREFILL = "prefill"
    DECODE = "decode"
    DONE = "done"


_RANGES: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 4096),
    "temperature": (0.0, 5.0),
    "top_k": (0, 100_000),
    "top_p": (0.01, 1.0),
    "repetition_penalty": (0.5, 5.0),
    "min_new_tokens": (0, 4096),
    "num_beams": (1, 16),
    "length_penalty": (-5.0, 5.0),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. ``temperature`` 0 means greedy; ``top_k`` 0 and ``top_p`` 1 are off.

    The repetition penalty counts generated tokens and id 1, as LAVIS does (its prompt is
    embeddings after an invisible start token). With ``num_beams`` above 1 the answer is LAVIS's
    beam search, which comes whole; ``length_penalty`` is for it alone. ``logprobs`` asks for each
    token's logarithm of probability, before penalties and temperature.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    logprobs: bool = False

    def checked(self) -> SamplingParams:
        """Return self, or raise :class:`BadParameter` naming the field and its range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                raise BadParameter(
                    f"{name} = {value!r} is not allowed: use a number from {low:g} to {high:g}.",
                    name=name, value=repr(value), low=f"{low:g}", high=f"{high:g}",
                )  # fmt: skip
        if len(self.stop) > 16 or any(not s or len(s) > 200 for s in self.stop):
            raise BadParameter(
                "stop takes at most 16 strings of 1 to 200 characters.",
                name="stop", value=repr(self.stop)[:80], low="1", high="200",
            )  # fmt: skip
        return self


@dataclass(frozen=True, slots=True)
class PastTurn:
    """An answered turn as the engine needs it: what was asked, seen, and the ids as generated."""

    turn_id: str
    question: str
    picture_id: str
    answer_ids: tuple[int, ...]
    answer: str
    # The text the Q-Former read for this turn; its image tokens are frozen with it.
    qformer_text: str
    # The tokenizer that made answer_ids; on another fingerprint the text is tokenised anew.
    tokenizer: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One question with all that leads up to it."""

    request_id: str
    question: str
    picture_id: str
    history: tuple[PastTurn, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    layout: str | None = None  # None: the checkpoint's default
    deadline: float | None = None  # time.monotonic() after which the engine gives up
    session_id: str = ""  # a hint for placement only


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts and times (seconds) of one answer, complete in the last Delta."""

    prompt_tokens: int = 0
    reused_tokens: int = 0  # keys and values found in the cache
    new_tokens: int = 0
    trimmed_turns: int = 0  # oldest turns left out because the context was full
    waited: float = 0.0
    encode: float = 0.0  # ViT and Q-Former
    prefill: float = 0.0
    first_token: float = 0.0  # from submit() to the first token
    decode: float = 0.0  # from the first token to the last

    @property
    def tokens_per_second(self) -> float:
        """Decode speed; 0 before the second token."""
        return (self.new_tokens - 1) / self.decode if self.new_tokens > 1 and self.decode else 0.0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. ``text`` and ``token_ids`` are what is new since the last Delta.

    ``place`` is the place in the waiting line (1 = next), 0 when it is being served, ``estimate``
    the seconds until it is served (0: not known). ``logprobs`` are those of ``token_ids``. ``progress`` is
    the share of the work that is done at most, for beams, which stream no text. The last Delta has ``finish`` set; with ``FinishReason.ERROR`` its ``error`` says why. ``answer_ids``
    and ``qformer_text`` are set in the last one: what a :class:`PastTurn` needs.
    """

    request_id: str
    phase: Phase
    text: str = ""
    token_ids: tuple[int, ...] = ()
    place: int = 0
    estimate: float = 0.0
    logprobs: tuple[float, ...] = ()
    progress: float = 0.0
    finish: FinishReason | None = None
    error: Exception | None = None
    statistics: Statistics = field(default_factory=Statistics)
    answer_ids: tuple[int, ...] = ()
    qformer_text: str = ""


class Stream(Protocol):
    """The answer to one submitted request, as it comes."""

    request_id: str

    def __iter__(self) -> Iterator[Delta]: ...

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    def cancel(self) -> None:
        """Ask the engine to stop within one unit of work. Safe from any thread, any number of times."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a page tells about the model; from the checkpoint's properties file."""

    name: str
    device: str
    dtype: str
    licence: str
    default_layout: str
    layouts: tuple[str, ...]
    context_length: int
    image_size: int
    tokenizer: str  # fingerprint
    languages: tuple[str, ...] = ("en",)
    world: dict[str, str] = field(default_factory=dict)  # language -> what it knows
    can_ask: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Answers that mean "outside", by language.
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    generation: SamplingParams = field(default_factory=SamplingParams)
    scenes: bool = False  # whether instructblip.scenes composes pictures of its world

    def spoken(self, language: str) -> str:
        """The language to offer questions in: the asker's where the model speaks it."""
        return language if language in self.languages else "en"


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an engine gets on with its work.

    ``since``: seconds in which no unit of work has ended, 0 where there is none to do.
    ``reason``: why it does not step, in a sentence that says what to do; empty when it does.
    """

    stepping: bool = True
    since: float = 0.0
    reason: str = ""


@runtime_checkable
class Engine(Protocol):
    """What the page and the API see, whoever serves behind it."""

    @property
    def card(self) -> ModelCard: ...

    def register_picture(self, picture_id: str, data: bytes) -> None:
        """Hand over a picture's bytes (any format :mod:`instructblip.images` reads) under its id.

        Raises:
            PictureError: the bytes are not a picture we can read.
        """

    def has_picture(self, picture_id: str) -> bool:
        """Whether the bytes (or features) of this picture are still held."""

    def submit(self, request: Request) -> Stream:
        """Queue a request. Returns at once.

        Raises:
            BadRequest: a parameter is out of range, the prompt can never fit, the picture is unknown.
            Busy: the waiting line is full.
            EngineStopped: the engine is not running.
        """

    def statistics(self) -> dict[str, Any]:
        """Counters for a status page: waiting, running, served, cancelled, units of work, memory."""

    def health(self) -> Health:
        """Whether it gets on. Returns at once, whatever the engine's thread does or holds."""

    def close(self, timeout: float = 3.0) -> None:
        """Stop the thread; running requests finish as CANCELLED."""
