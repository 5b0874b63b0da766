"""First questions about shapes, groups, colours, two conditions, numbers, the background; talk."""

from __future__ import annotations

import string

from instructblip.scenes import COLOURS, UNKNOWN, Scene
from instructblip.training.exchange import (
    SIDES,
    Asker,
    Exchange,
    called,
    furthest,
    in_order,
    things,
)
from instructblip.training.speech import Slots
from instructblip.training.targets import (
    PAINTED,
    Draw,
    Target,
    by_colour,
    by_coloured_group,
    by_coloured_name,
    by_group,
    by_name,
    of_group,
    other_colours,
)

OUTSTANDING = 1.3  # times the area: the biggest and the smallest are so far from the next
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _one_of(ask: Asker, scene: Scene, there: bool, draws: tuple[Draw, ...]) -> Target | None:
    return ask.rng.choice(draws)(ask, scene, there)


def shape(ask: Asker, scene: Scene) -> Exchange | None:
    """What shape is it? What shape is the red thing?"""
    thing = scene.objects[0]
    if len(scene.objects) == 1 and ask.chance(0.75):
        if thing.kind == "unknown" or (thing.kind != "shape" and not ask.chance(0.3)):
            return None
        found = thing.kind == "shape"
        said = ask.say.shape(thing.name if found else "")
        first = (0,) if found else ()
        return Exchange(
            "shape", ask.ask("shape"), said, first, subject=thing.name, topic=0 if found else None
        )
    return _by_colour(ask, scene, "shape", "shape_of", ask.chance(0.92))


def _by_colour(ask: Asker, scene: Scene, kind: str, rule: str, there: bool) -> Exchange | None:
    """What shape is the red thing? What is the red letter?"""
    groups = ("shape",) if kind == "shape" else PAINTED
    if not there:
        return _none_such(ask, scene, kind, rule, groups)
    able = []
    for i, t in enumerate(scene.objects):
        if t.kind in groups and len(of_group(scene, t.kind, t.colour)) == 1:
            able.append(i)
    if not able:
        return None
    i = ask.rng.choice(able)
    t = scene.objects[i]
    plain = all(o.colour for o in scene.objects)
    alone = sum(o.colour == t.colour for o in scene.objects) == 1
    group = "thing" if plain and alone and ask.chance(0.6) else t.kind
    slots = ask.say.group(ask.rng, group, colour=t.colour or "")
    said = ask.say.shape(t.name) if kind == "shape" else ask.say.thing(t)
    return Exchange(kind, ask.ask(rule, slots), said, (i,), subject=t.name, topic=i)


def _none_such(
    ask: Asker, scene: Scene, kind: str, rule: str, groups: tuple[str, ...]
) -> Exchange | None:
    """What is the red letter? There is none."""
    group = ask.rng.choice(groups)
    here = {t.colour for t in scene.objects if t.kind == group and t.colour}
    if not (free := other_colours(here)):
        return None
    colour = ask.rng.choice(free)
    slots = ask.say.group(ask.rng, group, colour=colour)
    return Exchange(kind, ask.ask(rule, slots), ask.say.missing(group, colour), ())


def any_(ask: Asker, scene: Scene) -> Exchange | None:
    """Is there an animal? Something red? A red shape?"""
    draws = (by_group, by_group, by_colour, by_coloured_group)
    return _there(ask, "any", _one_of(ask, scene, ask.chance(0.5), draws))


def _there(ask: Asker, kind: str, target: Target | None) -> Exchange | None:
    if target is None:
        return None
    slots, found = target
    topic = found[0] if len(found) == 1 else None
    question = ask.ask("exists", slots)
    return Exchange(
        kind, question, ask.say.there(bool(found)), found, subject=slots["x"], topic=topic
    )


def both(ask: Asker, scene: Scene) -> Exchange | None:
    """Two conditions: is there a red circle? What is the red letter? Where is the red star?"""
    draw = ask.rng.random()
    if draw < 0.45:
        return _there(ask, "both", by_coloured_name(ask, scene, ask.chance(0.5)))
    if draw < 0.7:
        return _by_colour(ask, scene, "both", "what_is", ask.chance(0.9))
    able = [
        i
        for i, t in enumerate(scene.objects)
        if t.colour and len(called(scene, t.name, t.colour)) == 1
    ]
    twice = [i for i in able if len(called(scene, scene.objects[i].name)) > 1]
    if not able:
        return None
    i = ask.rng.choice(twice or able)
    thing = scene.objects[i]
    slots = ask.noun(scene, thing.name, colour=thing.colour or "")
    question = ask.ask("where", slots)
    return Exchange("both", question, ask.say.where(thing), (i,), subject=thing.name, topic=i)


def negated(ask: Asker, scene: Scene) -> Exchange | None:
    """Is there no cat? The answer says whether the negated statement is true.

    "Is there no cat?", "There is no cat, right?" and "Is there not a cat?" get "Yes." where there
    is none; "Isn't there a cat?" expects one and gets "Yes." where there is one.
    """
    draws = (by_name, by_name, by_coloured_name, by_coloured_group, by_colour, by_group)
    target = _one_of(ask, scene, ask.chance(0.5), draws)
    if target is None:
        return None
    slots, found = target
    rule = "not_but" if ask.chance(0.25) else "not"
    said = ask.say.true(bool(found) == (rule == "not_but"))
    return Exchange("not", ask.ask(rule, slots), said, found, subject=slots["x"])


def most(ask: Asker, scene: Scene) -> Exchange | None:
    """What is the biggest thing? The leftmost one?"""
    how = ask.rng.choice(("biggest", "smallest", "biggest", "smallest", *SIDES))
    i = _extreme(scene, how) if how in ("biggest", "smallest") else furthest(scene, how)
    if i is None:
        return None
    if how in SIDES and ask.chance(0.4):
        end = how if ask.say.language == "en" else ask.word(how)
        question = ask.ask("most_end", side=ask.word(how), end=end)
    else:
        question = ask.ask("most", best=ask.word(f"most {how}" if how in SIDES else how))
    return Exchange("most", question, ask.say.thing(scene.objects[i]), (i,), subject=how, topic=i)


def _extreme(scene: Scene, how: str) -> int | None:
    order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].area)
    if len(order) < 2:
        return None
    one, two = (order[-1], order[-2]) if how == "biggest" else (order[1], order[0])
    if scene.objects[one].area < OUTSTANDING * scene.objects[two].area:
        return None
    return order[-1] if how == "biggest" else order[0]


def listing(ask: Asker, scene: Scene) -> Exchange | None:
    """Which of the things are food? List the animals."""
    draws = (by_group, by_group, by_colour, by_coloured_group)
    target = _one_of(ask, scene, ask.chance(0.75), draws)
    if target is None:
        return None
    slots, found = target
    order = in_order(scene, found)
    said = ask.say.caption(things(scene, order), places=False)
    topic = order[0] if len(order) == 1 else None
    return Exchange("list", ask.ask("list", slots), said, order, subject=slots["x"], topic=topic)


def ground(ask: Asker, scene: Scene) -> Exchange | None:
    """What colour is the background? Only of a plain one that has a name."""
    colour = scene.ground
    if colour is None:
        return None
    return Exchange("ground", ask.ask("ground"), ask.say.colour(colour), named=False)


def tally(ask: Asker, scene: Scene) -> Exchange | None:
    """How many animals, red things, red shapes?"""
    draws = (by_group, by_group, by_colour, by_coloured_group, by_coloured_name)
    target = _one_of(ask, scene, ask.chance(0.8), draws)
    if target is None:
        return None
    slots, found = target
    said = ask.say.number(len(found))
    return Exchange("tally", ask.ask("count", slots), said, found, subject=slots["x"])


def number(ask: Asker, scene: Scene) -> Exchange | None:
    """Are there three things? More than two cats? Only one?"""
    if ask.chance(0.55):
        slots, found, named = ask.say.group(ask.rng, "thing"), in_order(scene), False
    else:
        target = _one_of(ask, scene, ask.chance(0.9), (by_name, by_name, by_group))
        if target is None:
            return None
        slots, found, named = *target, True
    rule, n, holds = _claim(ask, len(found), ask.chance(0.5))
    question = ask.ask(rule, slots, n=ask.say.figure(ask.rng, n))
    return Exchange("number", question, ask.say.true(holds), found, named=named, subject=slots["x"])


def _claim(ask: Asker, count: int, holds: bool) -> tuple[str, int, bool]:
    """A rule and a number whose claim about ``count`` holds or not, as asked where that can be."""
    claims = {
        "number_n": [n for n in range(2, 6) if (n == count) == holds],
        "number_one": [1] if (count == 1) == holds else [],
        "number_more": [n for n in range(1, 5) if (count > n) == holds],
        "number_less": [n for n in range(2, 6) if (count < n) == holds],
        "number_least": [n for n in range(2, 6) if (count >= n) == holds],
    }
    rule = ask.rng.choice([r for r, numbers in claims.items() if numbers])
    # Numbers near the truth come twice as often.
    near = [n for n in claims[rule] if abs(n - count) <= 1]
    return rule, ask.rng.choice(near if near and ask.chance(0.5) else claims[rule]), holds


def chat(ask: Asker, scene: Scene | None = None) -> Exchange:
    """Hello. Who are you? Thanks."""
    kind = ask.rng.choice(("hello", "who", "can", "thanks", "bye"))
    return Exchange("chat", ask.ask(kind), ask.say.said(kind), named=False, subject=kind)


def cannot(ask: Asker, scene: Scene) -> Exchange:
    """What no picture of this world can tell, or what is no question about one."""
    kind = ask.rng.choices(
        ("cannot_see", "cannot_do", "gibberish", "hue_unknown"), (4, 4, 1.2, 1.2)
    )[0]
    there = [t for t in scene.objects if t.name != UNKNOWN]
    if kind == "hue_unknown":
        able = [t for t in there if not t.colour and len(called(scene, t.name)) == 1]
        if able:
            return _said(ask, kind, ask.noun(scene, ask.rng.choice(able).name))
        kind = "cannot_see"
    name = ask.rng.choice(there).name if there else ask.rng.choice(list(ask.names))
    return _said(ask, kind, ask.noun(scene, name))


def _said(ask: Asker, kind: str, slots: Slots) -> Exchange:
    fill = {
        "hue": ask.say.hue(ask.rng, ask.rng.choice(list(COLOURS))),
        "d": str(ask.rng.randrange(2, 10)),
    }
    question = ask.ask(kind, slots, **fill, junk=junk(ask))
    return Exchange("cannot", question, ask.say.said(kind), named=False, subject=kind)


def junk(ask: Asker) -> str:
    """Letters that are no word: at random, or a run of neighbours on the keyboard in the test."""
    rng = ask.rng
    if ask.test:
        row = rng.choice(_ROWS)
        return "".join(rng.choices(row, k=rng.randrange(4, 9)))
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(3, 10)))


def word(ask: Asker, scene: Scene) -> Exchange:
    """Is there a zebra? Where is the sofa? The world has no such word."""
    rule = ask.rng.choices(("exists", "where", "colour", "count", "not"), (5, 3, 2, 2, 0.5))[0]
    question = ask.ask(rule, ask.say.strange(ask.rng, ask.test))
    return Exchange("word", question, ask.say.said("word"), ())
