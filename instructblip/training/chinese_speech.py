"""How the world is spoken of in Chinese."""

from __future__ import annotations

import random
from collections.abc import Sequence

from instructblip.scenes import UNKNOWN, Thing
from instructblip.training import chinese, chinese_follow, chinese_more, chinese_rules
from instructblip.training.grammar import Grammar
from instructblip.training.speech import SYNONYMS, Names, Slots, clear, fill, listed
from instructblip.training.surface import hanzi_surface


class Chinese:
    """Simple Mandarin; answers have no measure words but 个."""

    language = "zh"
    outside = chinese.OUTSIDE

    grammar = Grammar(
        chinese_rules.WORDS,
        {**chinese_rules.RULES, **chinese_follow.RULES, **chinese_more.RULES},
    )

    def ask(self, rng: random.Random, kind: str, test: bool, slots: Slots) -> str:
        return hanzi_surface(rng, *fill(self.grammar, rng, kind, test, slots), kind)

    def noun(
        self, rng: random.Random, name: str, key: str = "x", colour: str = "", there: Names = ()
    ) -> Slots:
        word = self.one(name)
        if rng.random() < SYNONYMS and (
            others := clear(chinese.SYNONYMS.get(name, ()), chinese.CLASHES, there)
        ):
            word = rng.choice(others)
        return self._slots(
            rng,
            word,
            chinese.MEASURES.get(name, "只" if name in chinese.ANIMALS else "个"),
            key,
            colour,
        )

    def group(self, rng: random.Random, group: str, key: str = "x", colour: str = "") -> Slots:
        word = rng.choice(chinese.GROUPS[group])
        return self._slots(
            rng, word, "种" if group == "thing" and rng.random() < 0.1 else "个", key, colour
        )

    def strange(self, rng: random.Random, test: bool) -> Slots:
        words = chinese.STRANGE_TEST if test else chinese.STRANGE
        return self._slots(rng, rng.choice(words), "个", "x", "")

    def word(self, rng: random.Random, meaning: str) -> str:
        return rng.choice(chinese.WORDS[meaning])

    def hue(self, rng: random.Random, colour: str) -> str:
        others = chinese.COLOUR_SYNONYMS.get(colour)
        return (
            rng.choice(others)
            if others and rng.random() < 2 * SYNONYMS
            else chinese.COLOURS[colour]
        )

    def figure(self, rng: random.Random, count: int) -> str:
        return chinese.FIGURES[count] if rng.random() < 0.7 else str(count)

    def _slots(self, rng: random.Random, one: str, measure: str, key: str, colour: str) -> Slots:
        if colour:
            hue = self.hue(rng, colour)
            one = f"{hue}{one}" if rng.random() < 0.15 else f"{hue}的{one}"
        measure = measure if rng.random() < 0.6 else "个"
        some = f"一{measure}{one}" if rng.random() < 0.25 else one
        return {
            key: one,
            f"a_{key}": some,
            f"{key}s": one,
            "m" if key == "x" else f"m_{key}": measure,
        }

    def one(self, name: str) -> str:
        if name.startswith("letter "):
            return f"字母{name[-1]}"
        return f"数字{name[-1]}" if name.startswith("number ") else chinese.NAMES[name]

    def place(self, thing: Thing) -> str:
        return self._spot(thing).removeprefix("在")

    def thing(self, thing: Thing) -> str:
        return self._phrase(thing) + "。"

    def kind(self, kind: str) -> str:
        return (chinese.UNKNOWN if kind == "unknown" else chinese.KINDS[kind]) + "。"

    def colour(self, colour: str) -> str:
        return chinese.COLOURS[colour] + "。"

    def number(self, count: int) -> str:
        return chinese.NUMBERS[count] + "。"

    def where(self, thing: Thing) -> str:
        return self._spot(thing) + "。"

    def there(self, found: bool) -> str:
        return "有。" if found else "没有。"

    def true(self, right: bool) -> str:
        return "是。" if right else "不是。"

    def winner(self, name: str) -> str:
        return self.one(name) + "。"

    def caption(self, things: Sequence[Thing], places: bool) -> str:
        parts = [(self._spot(t) + "有" if places else "") + self._phrase(t) for t in things]
        if not parts:
            return self.number(0)
        return (listed(parts, "、", "、") if places else listed(parts, "、", "和")) + "。"

    def shape(self, name: str) -> str:
        return self.one(name) + "。" if name else self.missing("shape")

    def missing(self, name: str, colour: str = "") -> str:
        word = chinese.MISSING.get(name) or self.one(name)
        return "没有" + (f"{chinese.COLOURS[colour]}的" if colour else "") + word + "。"

    def compared(self, bigger: bool) -> str:
        return "更大。" if bigger else "更小。"

    def said(self, kind: str) -> str:
        return chinese.SAID[kind]

    def _spot(self, thing: Thing) -> str:
        column, row = thing.cell
        return chinese.PLACES[row][column]

    def _phrase(self, thing: Thing) -> str:
        if thing.name == UNKNOWN:
            return chinese.UNKNOWN
        name = self.one(thing.name)
        return f"{chinese.COLOURS[thing.colour]}的{name}" if thing.colour else name
