"""Figures of an evaluation: right answers by question type, beside what guessing would score."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from dataclasses import dataclass, field

from instructblip.scenes import COLOURS

REFUSED = ("i don't recognise this picture", "我不认识这张图片")
BY_TRIPLES = ("caption", "detail")
FOLLOW_UPS = ("what+", "colour+", "where+", "side+", "exists+", "relation+")
ABLATIONS = ("instruction", "history", "picture")
# Types whose answer hangs on what was taken away; the others may do without it.
NEEDS = {
    "instruction": ("where", "exists", "relation", "compare", "colour", "count"),
    "history": ("what+", "colour+", "where+", "relation+"),
    "picture": ("what", "kind", "colour", "side", "count", "caption", "detail", "where", "exists",
                "relation", "compare", *FOLLOW_UPS),
}  # fmt: skip


@dataclass(slots=True)
class Score:
    """Answers of one question type."""

    points: list[float] = field(default_factory=list)  # 0 to 1, one for each question
    exact: int = 0
    truth: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # question, wanted, got
    speed: list[tuple[float, int, float]] = field(default_factory=list)  # s, tokens, s
    refused: int = 0  # wrongly: "I don't recognise this picture" about a scene of the world

    def add(self, question: str, wanted: str, got: str, points: float | None = None) -> None:
        """Count one answer; ``points`` where exact match is not the measure."""
        same = normal(wanted) == normal(got)
        self.points.append(float(same) if points is None else points)
        self.truth[wanted] += 1
        self.exact += same
        if same:
            return
        self.refused += normal(got) in REFUSED
        if len(self.wrong) < 20:
            self.wrong.append((question, wanted, got))

    @property
    def asked(self) -> int:
        """Number of questions."""
        return len(self.points)

    @property
    def share(self) -> float:
        """Mean of the points: right answers of all, or mean F1."""
        return sum(self.points) / max(self.asked, 1)

    @property
    def most_frequent(self) -> float:
        """What always giving the commonest answer would score."""
        return max(self.truth.values(), default=0) / max(self.asked, 1)

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """95 % interval: Wilson's for right or wrong, the normal one for F1."""
        n, p = max(self.asked, 1), self.share
        if any(0 < point < 1 for point in self.points):
            half = z * statistics.pstdev(self.points) / math.sqrt(n)
            return max(p - half, 0.0), min(p + half, 1.0)
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half


def normal(text: str) -> str:
    """Case, white space and final stop do not count."""
    return re.sub(r"\s+", " ", text).strip(" .。").lower()


def guessing(kind: str, score: Score, language: str) -> float:
    """What a guess scores that knows the form of the answer but not the picture."""
    from instructblip.training.dialogues import all_names
    from instructblip.triples import f1

    names = all_names()
    phrases = sum(len(COLOURS) if k in ("shape", "letter", "digit") else 1 for k in names.values())
    ways = {
        "what": phrases, "side": phrases, "kind": len(set(names.values())), "colour": len(COLOURS),
        "count": 6, "where": 9, "exists": 2, "relation": 2, "compare": 2,
    }  # fmt: skip
    if (base := kind.rstrip("+")) in ways:
        return 1 / ways[base]
    # Captions: the one of the next scene.
    truths = list(score.truth)
    pairs = zip(truths, truths[1:] + truths[:1], strict=True)
    return statistics.fmean(f1(said, true, language) for said, true in pairs) if truths else 0.0


def false_refusals(scores: dict[str, Score]) -> float:
    """Share of questions about scenes of the world that were refused."""
    asked = sum(s.asked for s in scores.values())
    return sum(s.refused for s in scores.values()) / max(asked, 1)


def report(scores: dict[str, Score], language: str = "en") -> str:
    """A table in Markdown, with the mean over all types."""
    lines = [
        "| type | right | of | guessing | most frequent answer | 95 % interval |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, score in scores.items():
        low, high = score.interval()
        guess = guessing(kind, score, language)
        lines.append(
            f"| {kind} | {score.share:.1%} | {score.asked} | {guess:.1%} | "
            f"{score.most_frequent:.1%} | {low:.1%}–{high:.1%} |"
        )
    lines.append(f"| **mean over types** | **{mean(scores):.1%}** | | | | |")
    exact = [f"{k} {scores[k].exact / scores[k].asked:.1%}" for k in BY_TRIPLES if k in scores]
    return "\n".join(lines + (["", f"Exact match: {', '.join(exact)}."] if exact else []))


def ablation_report(
    whole: dict[str, Score], parts: dict[str, dict[str, Score]], language: str
) -> str:
    """One column for each thing taken away; bold where the type needs it."""
    lines = [
        f"| type | whole | {' | '.join('no ' + part for part in parts)} | guessing |",
        "| --- " * (len(parts) + 3) + "|",
    ]
    for kind, score in whole.items():
        cells = []
        for part, scores in parts.items():
            figure = f"{scores[kind].share:.1%}"
            cells.append(f"**{figure}**" if kind in NEEDS[part] else figure)
        guess = guessing(kind, score, language)
        lines.append(f"| {kind} | {score.share:.1%} | {' | '.join(cells)} | {guess:.1%} |")
    return "\n".join(lines)


def speed(scores: dict[str, Score]) -> str:
    """Medians through the engine; the rate over answers of 12 tokens and more."""
    laps = [lap for score in scores.values() for lap in score.speed]
    first = statistics.median(lap[0] for lap in laps) * 1000
    long = [(tokens - 1) / spent for _, tokens, spent in laps if tokens >= 12 and spent > 0]
    rate = f"{statistics.median(long):.0f} tokens/s" if long else "no long answers"
    return f"median first token {first:.1f} ms of {len(laps)} answers; {rate} of {len(long)}"


def mean(scores: dict[str, Score]) -> float:
    """Mean over all types, follow-ups included, each type counting the same."""
    return sum(s.share for s in scores.values()) / max(len(scores), 1)
