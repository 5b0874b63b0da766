"""Turns as a tree; a path of turns → prompt segments; the context budget.

Segments are tokenised one by one and never again from joined text, so that the keys and values
of a turn stay valid as long as its ids are. The three layouts (img = image tokens, q = question,
a = answer, ``</s>`` = LAVIS's start token), plain template, at turn 3:

=========  =====================================================
refresh    img(q3) ``</s>`` q1 a1 q2 a2 q3
keep       img(q1) ``</s>`` q1 a1 ``</s>`` q2 a2 ``</s>`` q3
append     img(q1) ``</s>`` q1 a1 img(q2) ``</s>`` q2 a2 img(q3) ``</s>`` q3
=========  =====================================================

At turn 1 all three are LAVIS's own prompt (blip2_vicuna_instruct.py, ``generate``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from instructblip.engine.base import PastTurn, Request
from instructblip.errors import PromptTooLong, UnknownTurn
from instructblip.properties import QFORMER_TURNS, Properties, check_layout

# After an overflow the context is cut to this share, so that the next turns fit without a rebuild.
TRIM_TO = 0.6


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """``length`` image tokens of one picture, as the Q-Former reads it with one text."""

    picture_id: str
    qformer_text: str
    length: int

    def positions(self) -> Iterator[Hashable]:
        """One key a position: equal keys mean equal keys-and-values, given equal ones before."""
        for position in range(self.length):
            yield (self.picture_id, self.qformer_text, position)


@dataclass(frozen=True, slots=True)
class TextSegment:
    """Token ids of the language model."""

    ids: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.ids)

    def positions(self) -> Iterator[Hashable]:
        """The ids themselves."""
        yield from self.ids


T = TypeVar("T")
Segment = ImageSegment | TextSegment


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the language model reads for one request."""

    segments: tuple[Segment, ...]
    qformer_text: str  # of the new turn, to be kept with it
    trimmed_turns: int = 0

    def __len__(self) -> int:
        return sum(s.length for s in self.segments)

    def keys(self) -> list[Hashable]:
        """One hashable a position, for finding the longest common prefix."""
        return [key for segment in self.segments for key in segment.positions()]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What prompting needs of the tokenizer.

    Attributes:
        encode: text → ids without special tokens, as LAVIS's slow tokenizer.
        start_id: the token that each prompt starts with (LAVIS: ``</s>``).
        end_id: the token that ends an answer.
        fingerprint: changes when ids change their meaning.
    """

    encode: Callable[[str], Sequence[int]]
    start_id: int
    end_id: int
    fingerprint: str = ""


def qformer_text(properties: Properties, question: str, history: Sequence[PastTurn]) -> str:
    """The text that the Q-Former reads for a turn (without truncation, which counts its tokens)."""
    if properties.qformer_text == "question" or not history:
        return question
    earlier = " ".join(f"{t.question} {t.answer}" for t in history[-QFORMER_TURNS:])
    return f"{question} [SEP] {earlier}"


def build_prompt(request: Request, properties: Properties, vocabulary: Vocabulary) -> Prompt:
    """A path of turns and a new question → segments that fit into the context.

    When the context is full, the oldest whole turns go until :data:`TRIM_TO` of it is used. The
    cut is replayed from the first turn on, so it is the same at each later turn until the context
    is full again, and kept turns keep their keys and values (their image tokens are frozen).

    Raises:
        PromptTooLong: the new turn alone does not fit.
        BadParameter: the layout is not the checkpoint's.
    """
    layout = check_layout(request.layout, properties.layouts, properties.default_layout)
    text = qformer_text(properties, request.question, request.history)
    now = PastTurn("", request.question, request.picture_id, (), "", text)
    turns = (*request.history, now)
    writer = _Writer(layout, properties, vocabulary)
    budget = context_budget(properties, request.sampling.max_new_tokens)
    alone = writer.length(turns[-1:])
    if alone > budget:
        raise PromptTooLong(
            f"The question takes {alone} tokens with its picture; the model's context has room for "
            f"{budget}. Ask it shorter.",
            tokens=alone,
            limit=budget,
        )
    start = trim_start(turns, writer.length, budget)
    return Prompt(writer.segments(turns[start:]), text, trimmed_turns=start)


def context_budget(properties: Properties, max_new_tokens: int) -> int:
    """Positions left for the prompt: the answer keeps its room, at most a quarter of the context."""
    return properties.context_length - min(max_new_tokens, properties.context_length // 4)


def trim_start(turns: Sequence[T], length: Callable[[Sequence[T]], int], budget: int) -> int:
    """The index of the first kept turn, replaying the conversation's growth."""
    start = 0
    for end in range(1, len(turns) + 1):
        if length(turns[start:end]) > budget:
            while start < end - 1 and length(turns[start:end]) > TRIM_TO * budget:
                start += 1
    return start


@dataclass(slots=True)
class _Writer:
    """Writes turns as segments in one layout and template."""

    layout: str
    properties: Properties
    vocabulary: Vocabulary
    _ids: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def length(self, turns: Sequence[PastTurn]) -> int:
        return sum(s.length for s in self.segments(turns))

    def segments(self, turns: Sequence[PastTurn]) -> tuple[Segment, ...]:
        write = self._plain if self.properties.template == "plain" else self._vicuna
        return tuple(write(turns))

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._ids:
            self._ids[text] = tuple(self.vocabulary.encode(text))
        return self._ids[text]

    def _image(self, turn: PastTurn) -> ImageSegment:
        return ImageSegment(turn.picture_id, turn.qformer_text, self.properties.query_tokens)

    def _answer(self, turn: PastTurn, *, end: bool) -> tuple[int, ...]:
        """The ids as generated; from another tokenizer the text is read anew."""
        known = self.vocabulary.fingerprint
        same = not turn.tokenizer or not known or turn.tokenizer == known
        ids = turn.answer_ids if same else (*self._encode(turn.answer), self.vocabulary.end_id)
        if not end and ids and ids[-1] == self.vocabulary.end_id:
            return ids[:-1]
        return ids

    def _plain(self, turns: Sequence[PastTurn]) -> Iterator[Segment]:
        start = TextSegment((self.vocabulary.start_id,))
        for index, turn in enumerate(turns):
            if self.layout == "append" or index == 0:
                yield self._image(turns[-1] if self.layout == "refresh" else turn)
            elif self.layout == "keep" and turn.picture_id != turns[index - 1].picture_id:
                # A new picture in mid-chat brings its own image tokens in this layout too.
                yield self._image(turn)
            if self.layout != "refresh" or index == 0:
                yield start
            yield TextSegment(self._encode(turn.question))
            if index < len(turns) - 1:
                yield TextSegment(self._answer(turn, end=False))

    def _vicuna(self, turns: Sequence[PastTurn]) -> Iterator[Segment]:
        system, roles, sep = vicuna_template(self.properties.template)
        opening = TextSegment((self.vocabulary.start_id, *self._encode(system)))
        if self.layout == "append":
            yield opening
        for index, turn in enumerate(turns):
            changed = index > 0 and turn.picture_id != turns[index - 1].picture_id
            if self.layout == "append" or index == 0 or (self.layout == "keep" and changed):
                yield self._image(turns[-1] if self.layout == "refresh" else turn)
            if index == 0 and self.layout != "append":
                yield opening
            yield TextSegment(self._encode(f"{roles[0]}:{sep}{turn.question}{sep}{roles[1]}:"))
            if index < len(turns) - 1:
                yield TextSegment(self._answer(turn, end=True))


@cache
def vicuna_template(name: str) -> tuple[str, tuple[str, str], str]:
    """FastChat's system message, roles and separator of a template."""
    from fastchat.conversation import get_conv_template

    template = get_conv_template(name)
    return template.system_message, (template.roles[0], template.roles[1]), template.sep


@dataclass(frozen=True, slots=True)
class Turn:
    """A node of a conversation's tree."""

    id: str
    parent: str | None
    past: PastTurn


@dataclass(slots=True)
class Conversation:
    """A tree of answered turns with a current leaf; retry adds a sibling, edit a branch.

    For programs and the terminal; the page keeps its trees in SQLite.
    """

    leaf: str | None = None
    _turns: dict[str, Turn] = field(default_factory=dict)

    def add(self, past: PastTurn, parent: str | None = None) -> Turn:
        """Add a turn below ``parent`` (None: a root) and move the leaf to it.

        Raises:
            UnknownTurn: the parent is not in this conversation, or the id is taken.
        """
        if parent is not None:
            self.turn(parent)
        if past.turn_id in self._turns:
            raise UnknownTurn(f"Turn {past.turn_id} is already in this conversation; use a new id.")
        turn = Turn(past.turn_id, parent, past)
        self._turns[turn.id] = turn
        self.leaf = turn.id
        return turn

    def turn(self, turn_id: str) -> Turn:
        """The turn with this id.

        Raises:
            UnknownTurn: there is none.
        """
        try:
            return self._turns[turn_id]
        except KeyError:
            raise UnknownTurn(
                f"Turn {turn_id} is not in this conversation; reload it.", turn=turn_id
            ) from None

    def path(self, leaf: str | None = None) -> tuple[PastTurn, ...]:
        """The turns from the root to ``leaf`` (default: the current leaf)."""
        steps: list[PastTurn] = []
        at = leaf if leaf is not None else self.leaf
        while at is not None:
            turn = self.turn(at)
            steps.append(turn.past)
            at = turn.parent
        return tuple(reversed(steps))

    def siblings(self, turn_id: str) -> tuple[Turn, ...]:
        """All turns with the same parent, in the order they were added, itself among them."""
        parent = self.turn(turn_id).parent
        return tuple(t for t in self._turns.values() if t.parent == parent)

    def undo(self) -> str | None:
        """Move the leaf to its parent and return the question that was taken back."""
        if self.leaf is None:
            return None
        turn = self.turn(self.leaf)
        self.leaf = turn.parent
        return turn.past.question
