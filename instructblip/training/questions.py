"""First questions about a scene that look one thing, two things or all of them up."""

from __future__ import annotations

from instructblip.scenes import Scene
from instructblip.training.exchange import (
    APART,
    SIDES,
    Asker,
    Exchange,
    called,
    furthest,
    in_order,
    things,
    unique,
)
from instructblip.training.targets import by_name, some_name

CLEARLY = 1.5  # times the area: sizes that are nearer are not compared
MISSING = 0.12  # share of "where" and "colour" that ask for what is not there
RELATIONS = (
    ("to the left of", 0, -1),
    ("to the right of", 0, 1),
    ("above", 1, -1),
    ("below", 1, 1),
)


def spot(ask: Asker, scene: Scene) -> tuple[int, str] | None:
    """An object that is alone in a corner or in the middle, with the place's name.

    The other cells are left out: "on the left" asks for the leftmost thing.
    """
    cells = [t.cell for t in scene.objects]
    clear = [(c[0] == 1) == (c[1] == 1) for c in cells]
    alone = [i for i, c in enumerate(cells) if cells.count(c) == 1 and clear[i]]
    if not alone:
        return None
    i = ask.rng.choice(alone)
    return i, ask.word(ask.say.place(scene.objects[i]))


def what(ask: Asker, scene: Scene) -> Exchange | None:
    """What is this? What is at the top left?"""
    if len(scene.objects) == 1 and ask.chance(0.8):
        i, question = 0, ask.ask("what" if ask.chance(0.6) else "what_in")
    elif (found := spot(ask, scene)) is not None:
        i, question = found[0], ask.ask("what_at", place=found[1])
    else:
        return None
    thing = scene.objects[i]
    return Exchange("what", question, ask.say.thing(thing), (i,), subject=thing.name, topic=i)


def kind(ask: Asker, scene: Scene) -> Exchange | None:
    """What kind of thing is it?"""
    if len(scene.objects) == 1:
        i, question = 0, ask.ask("kind")
    elif (found := spot(ask, scene)) is not None:
        i, question = found[0], ask.ask("kind_at", place=found[1])
    else:
        return None
    thing = scene.objects[i]
    return Exchange("kind", question, ask.say.kind(thing.kind), (i,), subject=thing.name, topic=i)


def colour(ask: Asker, scene: Scene) -> Exchange | None:
    """What colour is the circle? With a single thing: what colour is it?"""
    if ask.chance(MISSING):
        return missing(ask, scene, "colour", painted=True)
    only = [i for i, t in enumerate(scene.objects) if t.kind == "shape"]
    if scene.objects[0].colour and len(scene.objects) == 1 and ask.chance(0.6):
        group = scene.objects[0].kind
        return _hue(ask, scene, 0, ask.ask("colour_only", ask.say.group(ask.rng, group)))
    if len(only) == 1 and len(scene.objects) > 1 and ask.chance(0.15):
        return _hue(ask, scene, only[0], ask.ask("colour", ask.say.group(ask.rng, "shape")))
    if not (able := unique(scene, coloured=True)):
        return None
    i = ask.rng.choice(able)
    question = ask.ask("colour", ask.noun(scene, scene.objects[i].name))
    return _hue(ask, scene, i, question)


def _hue(ask: Asker, scene: Scene, i: int, question: str) -> Exchange:
    thing = scene.objects[i]
    said = ask.say.colour(thing.colour or "")
    return Exchange("colour", question, said, (i,), subject=thing.name, topic=i)


def missing(ask: Asker, scene: Scene, rule: str, painted: bool = False) -> Exchange | None:
    """A question about a name that is not there; ``painted``: of a coloured thing, mostly."""
    name = some_name(ask, scene, there=False)
    if painted and ask.chance(0.6):
        able = [n for n, k in ask.names.items() if k == "shape" and not called(scene, n)]
        name = ask.rng.choice(able) if able else name
    if name is None:
        return None
    question = ask.ask(rule, ask.noun(scene, name))
    return Exchange(rule, question, ask.say.missing(name), (), subject=name)


def side(ask: Asker, scene: Scene, which: str | None = None, rule: str = "side") -> Exchange | None:
    """What is on the left?"""
    which = which or ask.rng.choice(SIDES)
    i = furthest(scene, which)
    if i is None:
        return None
    question = ask.ask(rule, side=ask.word(which))
    return Exchange("side", question, ask.say.thing(scene.objects[i]), (i,), subject=which, topic=i)


def count(ask: Asker, scene: Scene) -> Exchange | None:
    """How many things are there? How many cats?"""
    everything = in_order(scene)
    if ask.chance(0.5):
        said = ask.say.number(len(everything))
        return Exchange("count", ask.ask("count_all"), said, everything, named=False)
    name = some_name(ask, scene, there=not ask.chance(0.2))
    if name is None:
        return None
    found = called(scene, name)
    question = ask.ask("count", ask.noun(scene, name))
    return Exchange("count", question, ask.say.number(len(found)), found, subject=name)


def caption(ask: Asker, scene: Scene) -> Exchange:
    """Describe the picture. What is in the picture?"""
    order = in_order(scene)
    text = ask.say.caption(things(scene, order), places=False)
    # "What is this?" in mid-chat would be about the turn before.
    draw = ask.rng.random()
    rule = "what_in" if draw < 0.35 else "what_this" if ask.fresh and draw < 0.45 else "caption"
    question = ask.ask(rule)
    return Exchange("caption", question, text, order, named=False)


def detail(ask: Asker, scene: Scene) -> Exchange:
    """Describe the picture in detail."""
    order = in_order(scene)
    text = ask.say.caption(things(scene, order), places=True)
    return Exchange("detail", ask.ask("detail"), text, order, named=False)


def where(ask: Asker, scene: Scene) -> Exchange | None:
    """Where is the cat?"""
    if ask.chance(MISSING):
        return missing(ask, scene, "where")
    if not (able := unique(scene)):
        return None
    i = ask.rng.choice(able)
    thing = scene.objects[i]
    question = ask.ask("where", ask.noun(scene, thing.name))
    return Exchange("where", question, ask.say.where(thing), (i,), subject=thing.name, topic=i)


def exists(ask: Asker, scene: Scene, rule: str = "exists") -> Exchange | None:
    """Is there a cat?"""
    target = by_name(ask, scene, ask.chance(0.5))
    if target is None:
        return None
    slots, found = target
    name = scene.objects[found[0]].name if found else ""
    topic = found[0] if len(found) == 1 else None
    question = ask.ask(rule, slots, a_y=slots["a_x"])
    said = ask.say.there(bool(found))
    return Exchange("exists", question, said, found, subject=name, topic=topic)


def relation(ask: Asker, scene: Scene, about: int | None = None) -> Exchange | None:
    """Is the cat above the dog? Of ``about``: is it above the dog?"""
    able = unique(scene)
    if len(able) < 2:
        return None
    i, j = ask.rng.sample(able, 2)
    if about is not None:
        i, j = about, ask.rng.choice([k for k in able if k != about])
    word, axis, sign = ask.rng.choice(RELATIONS)
    one, two = scene.objects[i], scene.objects[j]
    distance = (one.centre[axis] - two.centre[axis]) * sign
    if abs(distance) < APART:
        return None
    question = ask.ask(
        "relation" if about is None else "relation_follow",
        ask.noun(scene, one.name), ask.noun(scene, two.name, "y"), how=ask.word(word),
    )  # fmt: skip
    holds = distance > 0
    said = ask.say.true(holds)
    return Exchange("relation", question, said, (i,), (j,), subject=one.name, holds=holds)


def compare(ask: Asker, scene: Scene, about: int | None = None) -> Exchange | None:
    """Which is bigger, the cat or the dog? Is the cat bigger than the dog?"""
    able = unique(scene)
    if len(able) < 2:
        return None
    i, j = ask.rng.sample(able, 2)
    if about is not None:
        i, j = about, ask.rng.choice([k for k in able if k != about])
    one, two = scene.objects[i], scene.objects[j]
    if not (one.area > CLEARLY * two.area or two.area > CLEARLY * one.area):
        return None
    bigger = ask.chance(0.5)
    holds = (one.area > two.area) == bigger
    slots = (ask.noun(scene, one.name), ask.noun(scene, two.name, "y"))
    how, topic = ask.word("bigger" if bigger else "smaller"), None
    if about is not None and ask.chance(0.4):
        holds = one.area > two.area
        question, said = ask.ask("size_follow", *slots), ask.say.compared(holds)
    elif about is not None or ask.chance(0.3):
        rule = "compare_yes" if about is None else "compare_follow"
        question, said = ask.ask(rule, *slots, how=how), ask.say.true(holds)
    else:
        topic = i if holds else j
        said = ask.say.winner(scene.objects[topic].name)
        question = ask.ask("compare", *slots, how=how)
    return Exchange(
        "compare", question, said, (i,), (j,), subject=one.name, holds=holds, topic=topic
    )
