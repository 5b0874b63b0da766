"""Questions and answers about a scene: fixed shares of types, a grammar's wording, follow-ups.

The same generator serves training and evaluation; evaluation uses constructions and seeds that
training never saw. A type that does not suit a scene is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from instructblip.scenes import Scene
from instructblip.training import more_questions as more
from instructblip.training import questions as first
from instructblip.training.chinese_speech import Chinese
from instructblip.training.exchange import Asker, Exchange, all_names
from instructblip.training.follow import follow
from instructblip.training.speech import English, Speech
from instructblip.training.vocabulary import words_of_grammar

__all__ = ["SHARES", "SPEECHES", "Dialogues", "Exchange", "all_names", "words_of_grammar"]

# Share of each type among first questions, in per cent; training and evaluation read it here.
SHARES = {
    "what": 5, "kind": 4, "colour": 6, "side": 4, "count": 7, "caption": 5, "detail": 4,
    "where": 8, "exists": 8, "relation": 7, "compare": 7,
    "shape": 3, "any": 5, "both": 5, "not": 4, "most": 3.5, "list": 3, "ground": 1.5, "tally": 3,
    "number": 2.5, "chat": 1.2, "cannot": 1.5, "word": 1.8,
}  # fmt: skip
CHINESE_SHARE = 0.25  # of training's dialogues
SPEECHES: dict[str, Speech] = {"en": English(), "zh": Chinese()}
CHAT_OUTSIDE = 0.12  # share of small talk about pictures from outside the world, in training
_FOLLOW_SHARE = 0.5
_TRIES = 12
_AGAIN = 4  # draws to find other words for what was asked before
_MAKERS: dict[str, Callable[[Asker, Scene], Exchange | None]] = {
    "what": first.what, "kind": first.kind, "colour": first.colour, "side": first.side,
    "count": first.count, "caption": first.caption, "detail": first.detail, "where": first.where,
    "exists": first.exists, "relation": first.relation, "compare": first.compare,
    "shape": more.shape, "any": more.any_, "both": more.both, "not": more.negated, "most": more.most,
    "list": more.listing, "ground": more.ground, "tally": more.tally, "number": more.number,
    "chat": more.chat, "cannot": more.cannot, "word": more.word,
}  # fmt: skip
_OUTSIDE_KINDS = {
    "what_in": 4, "caption": 3, "detail": 2, "count_all": 2, "kind": 1, "side": 2, "where": 2,
    "exists": 3, "relation": 1, "what": 3, "colour": 1, "shape": 1, "most": 1, "list": 1, "count": 1,
}  # fmt: skip


class Dialogues:
    """Draws dialogues; ``test`` takes the constructions that training never uses.

    ``language``: en or zh; None mixes them, a dialogue being mostly in one.
    """

    def __init__(self, rng: random.Random, test: bool = False, language: str | None = "en") -> None:
        self._rng, self._language = rng, language
        self._ask = Asker(rng, SPEECHES[language or "en"], test)
        self._kinds, self._shares = list(SHARES), list(SHARES.values())

    def dialogue(self, scene: Scene, turns: int, kind: str | None = None) -> list[Exchange]:
        """Up to ``turns`` exchanges; the first of ``kind`` if given (empty if it cannot be)."""
        said: list[Exchange] = []
        asked: set[str] = set()
        for _ in range(turns):
            self._choose_language(bool(said))
            self._ask.fresh = not said
            for _ in range(_AGAIN):
                now = self._next(scene, said, kind)
                if now is None or now.question not in asked:
                    break
            if now is None:
                break
            said.append(now)
            asked.add(now.question)
        return said

    def outside(self, turns: int, talk: float | None = None) -> list[Exchange]:
        """Any questions about a picture from outside the world: one answer.

        ``talk``: share of small talk, which is answered as ever; None is training's share, and
        none for the test.
        """
        share = (0.0 if self._ask.test else CHAT_OUTSIDE) if talk is None else talk
        asks: list[Exchange] = []
        for _ in range(turns):
            self._choose_language(bool(asks))
            asks.append(more.chat(self._ask) if self._rng.random() < share else self._outside())
        return asks

    def _outside(self) -> Exchange:
        ask = self._ask
        kind = self._rng.choices(list(_OUTSIDE_KINDS), list(_OUTSIDE_KINDS.values()))[0]
        name, other = self._rng.choices(list(ask.names), k=2)
        nouns = (
            ask.say.group(self._rng, "animal") if kind == "list" else ask.say.noun(self._rng, name)
        )
        words = ask.ask(
            kind, nouns, ask.say.noun(self._rng, other, "y"), how=ask.word("above"),
            side=ask.word(self._rng.choice(("left", "right", "top", "bottom"))),
            best=ask.word("biggest"),
        )  # fmt: skip
        return Exchange("outside", words, ask.say.outside, (), named=False)

    def _choose_language(self, going_on: bool) -> None:
        if self._language is None and (not going_on or self._rng.random() < 0.05):
            self._ask.say = SPEECHES["zh" if self._rng.random() < CHINESE_SHARE else "en"]

    def _next(self, scene: Scene, said: list[Exchange], kind: str | None) -> Exchange | None:
        if said and self._rng.random() < _FOLLOW_SHARE:
            going_on = follow(self._ask, scene, said[-1])
            if going_on is not None:
                return replace(going_on, follows=len(scene.objects) > 1)
        return self._first(scene, kind if not said else None)

    def _first(self, scene: Scene, kind: str | None) -> Exchange | None:
        for _ in range(_TRIES):
            chosen = kind or self._rng.choices(self._kinds, self._shares)[0]
            if (made := _MAKERS[chosen](self._ask, scene)) is not None:
                return made
        return None
