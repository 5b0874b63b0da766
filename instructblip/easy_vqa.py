"""The public easy-VQA set: other people's pictures of plain shapes, and other people's questions.

``python -m instructblip eval --easy-vqa FOLDER``: the folder ``test`` of the data that PyPI's
package ``easy-vqa`` holds (``questions.json`` and ``images/``). Its answers are one word: yes, no, a
shape or a colour. An answer is right where it says that word, or a synonym, and none of the others.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from instructblip.engine.base import Engine, Request
from instructblip.errors import InstructBlipError

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "gray", "red", "blue", "green", "brown", "teal", "yellow")
SYNONYMS = {"grey": "gray", "square": "rectangle"}  # its rectangles may have equal sides
_ANSWERS = {"yes", "no", *SHAPES, *COLOURS}


@dataclass(slots=True)
class Form:
    """One way to ask: ``asked`` and ``right`` count its questions."""

    asked: int = 0
    right: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # question, wanted, got


def read_questions(folder: Path) -> list[tuple[str, str, Path]]:
    """(question, answer, picture) of every question.

    Raises:
        InstructBlipError: the folder does not hold such a set.
    """
    try:
        rows = json.loads((folder / "questions.json").read_text("utf-8"))
        return [(str(q), str(a), folder / "images" / f"{int(n)}.png") for q, a, n in rows]
    except (OSError, ValueError, TypeError) as error:
        raise InstructBlipError(
            f"{folder} holds no easy-VQA set ({error}). It is the folder data/test of PyPI's package "
            "easy-vqa, with questions.json and images/."
        ) from error


def said(answer: str) -> str:
    """The one word of the set's that an answer says; empty where it says none, or several."""
    words = re.findall(r"[a-z]+", answer.lower())
    found = {SYNONYMS.get(word, word) for word in words} & _ANSWERS
    return found.pop() if len(found) == 1 else ""


def form_of(question: str) -> str:
    """A question with its shape and colour taken out, and every article a plain one."""
    words = re.findall(r"[a-z']+", question.lower())
    names = {**dict.fromkeys(SHAPES, "SHAPE"), **dict.fromkeys(COLOURS, "COLOUR"), "an": "a"}
    return " ".join(names.get(word, word) for word in words)


def ask_all(
    engine: Engine, questions: list[tuple[str, str, Path]]
) -> tuple[dict[str, Form], dict[str, Form]]:
    """Ask everything: scores by form, and by what is asked for (shape, colour, yes/no, negated)."""
    forms: dict[str, Form] = defaultdict(Form)
    groups: dict[str, Form] = defaultdict(Form)
    for question, wanted, path in questions:
        if not engine.has_picture(str(path)):
            engine.register_picture(str(path), path.read_bytes())
        got = ""
        for delta in engine.submit(Request("e", question, str(path), (), engine.card.generation)):
            got += delta.text
        if delta.error is not None:
            raise delta.error
        for score in (forms[form_of(question)], groups[_group(question, wanted)]):
            score.asked += 1
            score.right += said(got) == wanted
            if said(got) != wanted and len(score.wrong) < 20:
                score.wrong.append((question, wanted, got))
    return dict(forms), dict(groups)


def made_by_grammar(seed: int = 0, draws: int = 100_000) -> set[str]:
    """The forms that training's own questions have, found by drawing many."""
    from instructblip.scenes import compose
    from instructblip.training.dialogues import Dialogues

    rng = random.Random(seed)
    talks, found = Dialogues(rng), set()
    while draws > 0:
        scene = compose(rng, count=1, only="shape")
        for turn in talks.dialogue(scene, 20):
            found.add(form_of(turn.question))
        draws -= 20
    return found


def report_easy_vqa(forms: dict[str, Form], groups: dict[str, Form], own: set[str]) -> str:
    """Tables in Markdown; ``own``: the forms that the grammar makes by itself."""
    lines = ["| asked for | right | of |", "| --- | --- | --- |"]
    lines += [f"| {name} | {_share([form])} | {form.asked} |" for name, form in groups.items()]
    lines += [
        f"| **all** | **{_share(list(forms.values()))}** | {sum(f.asked for f in forms.values())} |"
    ]
    lines += ["", "| form | the grammar's own | right | of |", "| --- | --- | --- | --- |"]
    for name, form in sorted(forms.items(), key=lambda item: -item[1].asked):
        its = "yes" if name in own else "no"
        lines.append(f"| {name} | {its} | {_share([form])} | {form.asked} |")
    for mine, title in ((True, "forms of the grammar"), (False, "other forms")):
        those = [form for name, form in forms.items() if (name in own) is mine]
        if those:
            lines.append(f"\n{title}: {_share(those)} of {sum(f.asked for f in those)}")
    return "\n".join(lines)


def _share(forms: list[Form]) -> str:
    return f"{sum(f.right for f in forms) / max(sum(f.asked for f in forms), 1):.1%}"


def _group(question: str, wanted: str) -> str:
    if wanted not in ("yes", "no"):
        return "shape" if wanted in SHAPES else "colour"
    negated = re.search(r"\b(no|not)\b", question.lower())
    return "whether there is none" if negated else "whether there is one"
