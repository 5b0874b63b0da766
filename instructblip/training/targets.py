"""What a question can be about: a name, a kind, a colour, or two of them; there or absent.

Each function takes the :class:`Asker`, a scene and whether such things should be there, and
returns the words with the indices of what they mean, or None where the scene does not allow a
question whose answer would be plain to a person:

- kinds are not asked for beside unknown drawings (which may be animals), nor plants beside fruit,
  nor clothing beside glasses; "food" takes in fruit and vegetables;
- colours belong to shapes, letters and digits: "something red" is asked where all things are such;
- a colour that is absent is not one that looks like a colour that is there (gold, yellow).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from instructblip.scenes import COLOURS, UNKNOWN, Scene
from instructblip.training.exchange import Asker, called
from instructblip.training.speech import Slots

Target: TypeAlias = "tuple[Slots, tuple[int, ...]]"
Draw: TypeAlias = "Callable[[Asker, Scene, bool], Target | None]"
MEMBERS: dict[str, tuple[str, ...]] = {
    "animal": ("animal",), "fruit": ("fruit",), "vegetable": ("vegetable",),
    "food": ("food", "fruit", "vegetable"), "vehicle": ("vehicle",), "plant": ("plant",),
    "instrument": ("instrument",), "clothing": ("clothing",), "shape": ("shape",),
    "letter": ("letter",), "digit": ("digit",),
}  # fmt: skip
PAINTED = ("shape", "letter", "digit")
_RARE = 0.8  # of scenes without colours are not asked for one: "no" would be the only answer
_ALIKE = [
    {"gold", "yellow"}, {"gold", "orange"}, {"gold", "brown"}, {"gold", "beige"}, {"beige", "white"}, {"beige", "yellow"},
    {"beige", "pink"}, {"beige", "brown"}, {"beige", "orange"}, {"beige", "gray"}, {"teal", "green"}, {"teal", "blue"},
    {"teal", "gray"}, {"orange", "brown"}, {"red", "pink"}, {"white", "gray"}, {"purple", "pink"},
]  # fmt: skip


def by_name(ask: Asker, scene: Scene, there: bool) -> Target | None:
    """cat"""
    if there and _squares_alone(scene) and ask.chance(0.3):
        return ask.noun(scene, "rectangle"), called(scene, "square")
    name = some_name(ask, scene, there)
    return None if name is None else (ask.noun(scene, name), called(scene, name))


def _squares_alone(scene: Scene) -> bool:
    """Whether squares are the scene's only rectangles: then "is there a rectangle?" is a yes."""
    return bool(called(scene, "square")) and not called(scene, "rectangle")


def some_name(ask: Asker, scene: Scene, there: bool) -> str | None:
    """A name of the world that is in the scene, or is not."""
    present = sorted({t.name for t in scene.objects if t.name != UNKNOWN})
    if there:
        return ask.rng.choice(present) if present else None
    kinds = {t.kind for t in scene.objects if t.name != UNKNOWN}
    # Half of the absent names are of a kind that is there, or absence would show by kind.
    absent = [n for n in ask.names if n not in present]
    if _squares_alone(scene):
        absent.remove("rectangle")
    near = [n for n in absent if ask.names[n] in kinds]
    if near and ask.chance(0.5):
        return ask.rng.choice(near)
    return ask.rng.choice(absent)


def by_group(ask: Asker, scene: Scene, there: bool) -> Target | None:
    """animal"""
    kinds = {t.kind for t in scene.objects}
    if "unknown" in kinds:
        return None
    able = [g for g in MEMBERS if (not kinds.isdisjoint(MEMBERS[g])) == there]
    if kinds & {"fruit", "vegetable"}:
        able = [g for g in able if g != "plant"]
    if called(scene, "glasses"):
        able = [g for g in able if g != "clothing"]
    if not able:
        return None
    group = ask.rng.choice(able)
    return ask.say.group(ask.rng, group), of_group(scene, group)


def of_group(scene: Scene, group: str, colour: str | None = None) -> tuple[int, ...]:
    """Objects of a group, and of a colour if given."""
    return tuple(
        i for i, t in enumerate(scene.objects)
        if t.kind in MEMBERS[group] and (colour is None or t.colour == colour)
    )  # fmt: skip


def by_colour(ask: Asker, scene: Scene, there: bool) -> Target | None:
    """red thing"""
    if not all(t.colour for t in scene.objects):
        return None
    here = {t.colour for t in scene.objects if t.colour}
    colour = _colour(ask, here, there)
    if colour is None:
        return None
    found = tuple(i for i, t in enumerate(scene.objects) if t.colour == colour)
    return ask.say.group(ask.rng, "thing", colour=colour), found


def by_coloured_group(ask: Asker, scene: Scene, there: bool) -> Target | None:
    """red shape"""
    here = [g for g in PAINTED if of_group(scene, g)]
    if not here and ask.chance(_RARE):
        return None
    group = ask.rng.choice(here if here and (there or ask.chance(0.8)) else PAINTED)
    colours = {t.colour for t in scene.objects if t.kind == group and t.colour}
    others = sorted({t.colour for t in scene.objects if t.colour} - colours)
    if there and not colours:
        return None
    colour = _colour(ask, colours, there, others)
    if colour is None:
        return None
    return ask.say.group(ask.rng, group, colour=colour), of_group(scene, group, colour)


def by_coloured_name(ask: Asker, scene: Scene, there: bool) -> Target | None:
    """red circle"""
    here = sorted({t.name for t in scene.objects if t.colour})
    if not here and (there or ask.chance(_RARE)):
        return None
    if there:
        name = ask.rng.choice(here)
    elif here and ask.chance(0.6):
        name = ask.rng.choice(here)  # the same thing in another colour
    else:
        name = ask.rng.choice([n for n, k in ask.names.items() if k in PAINTED])
    if name == "rectangle" and _squares_alone(scene):
        return None
    colours = {t.colour for t in scene.objects if t.name == name and t.colour}
    others = sorted({t.colour for t in scene.objects if t.colour} - colours)
    colour = _colour(ask, colours, there, others)
    if colour is None:
        return None
    return ask.noun(scene, name, colour=colour), called(scene, name, colour)


def _colour(ask: Asker, here: set[str], there: bool, others: list[str] | None = None) -> str | None:
    """One of these colours, or one that is none of them and like none; ``others`` come first."""
    if there:
        return ask.rng.choice(sorted(here)) if here else None
    far = other_colours(here)
    if not far:
        return None
    near = [c for c in far if c in (others or ())]
    return ask.rng.choice(near if near and ask.chance(0.5) else far)


def other_colours(here: set[str]) -> list[str]:
    """Colours that are none of these and like none of them."""
    return [c for c in COLOURS if c not in here and not any({c, h} in _ALIKE for h in here)]
