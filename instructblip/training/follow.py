"""Questions that can only be read with the turn before: "it", "and on the right?", "what else?"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from instructblip.scenes import UNKNOWN, Scene
from instructblip.training.exchange import (
    SIDES,
    Asker,
    Exchange,
    called,
    in_order,
    opposite,
    things,
    unique,
)
from instructblip.training.questions import compare, exists, relation, side
from instructblip.training.targets import some_name

Make: TypeAlias = "Callable[[Asker, Scene, Exchange], Exchange | None]"


def follow(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    """A question that goes on from the last one; None where none is clear."""
    makes = _about_it(scene, last) if last.topic is not None else []
    makes += _SAME.get(last.kind, [])
    for make in ask.rng.sample(makes, len(makes)):
        if (made := make(ask, scene, last)) is not None:
            return made
    return None


def _about_it(scene: Scene, last: Exchange) -> list[Make]:
    assert last.topic is not None
    thing = scene.objects[last.topic]
    if thing.name == UNKNOWN or len(called(scene, thing.name, thing.colour)) > 1:
        return [_else]
    makes: list[Make] = [_relation, _relation, _compare]
    if last.kind in ("kind", "any"):
        makes += [_what] * 6
    if last.kind not in ("where",):
        makes += [_where] * 3
    if last.kind != "colour":
        makes += [_colour] * 4
    if last.kind not in ("where", "colour", "else"):
        makes += [_else]
    return makes


def _what(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    thing, about = scene.objects[last.topic or 0], last.topic or 0
    said = ask.say.thing(thing)
    return Exchange("what", ask.ask("what_follow"), said, (about,), subject=thing.name, topic=about)


def _where(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    about = last.topic or 0
    thing = scene.objects[about]
    # "It" goes on only where the place alone says which thing it is.
    alone = sum(t.cell == thing.cell for t in scene.objects) == 1
    topic = about if alone else None
    said = ask.say.where(thing)
    return Exchange(
        "where", ask.ask("where_follow"), said, (about,), subject=thing.name, topic=topic
    )


def _colour(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    about = last.topic or 0
    thing = scene.objects[about]
    colours = [t.colour for t in scene.objects]
    # One colour alone would not need the turn before.
    if not thing.colour or len({c for c in colours if c}) < 2:
        return None
    topic = about if all(colours) and colours.count(thing.colour) == 1 else None
    said = ask.say.colour(thing.colour)
    return Exchange(
        "colour", ask.ask("colour_follow"), said, (about,), subject=thing.name, topic=topic
    )


def _relation(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    return relation(ask, scene, last.topic) if _has_another(scene, last) else None


def _compare(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    return compare(ask, scene, last.topic) if _has_another(scene, last) else None


def _has_another(scene: Scene, last: Exchange) -> bool:
    """Two names are unique, and not all of them are the topic's."""
    able = unique(scene)
    return len(able) > 1 and last.topic in able


def _else(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    named = {last.topic} if last.topic is not None else set(last.first)
    others = in_order(scene, tuple(i for i in range(len(scene.objects)) if i not in named))
    said = ask.say.caption(things(scene, others), places=False) if others else ask.say.said("else")
    topic = others[0] if len(others) == 1 else None
    return Exchange("else", ask.ask("else"), said, others, topic=topic)


def _side(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    others = [s for s in SIDES if s not in (last.subject, opposite(last.subject))]
    which = opposite(last.subject) if ask.chance(0.7) else ask.rng.choice(others)
    return side(ask, scene, which, "side_follow")


def _exists(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    return exists(ask, scene, "exists_follow")


def _where_also(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    able = [i for i in unique(scene) if i not in last.first]
    if not able or ask.chance(0.1):
        return _missing_also(ask, scene, last, "where")
    i = ask.rng.choice(able)
    thing = scene.objects[i]
    question = ask.ask("where_also", ask.noun(scene, thing.name))
    return Exchange("where", question, ask.say.where(thing), (i,), subject=thing.name, topic=i)


def _colour_also(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    able = [i for i in unique(scene, coloured=True) if i not in last.first]
    if not able or ask.chance(0.1):
        return _missing_also(ask, scene, last, "colour")
    i = ask.rng.choice(able)
    thing = scene.objects[i]
    question = ask.ask("colour_also", ask.noun(scene, thing.name))
    said = ask.say.colour(thing.colour or "")
    return Exchange("colour", question, said, (i,), subject=thing.name, topic=i)


def _missing_also(ask: Asker, scene: Scene, last: Exchange, kind: str) -> Exchange | None:
    name = some_name(ask, scene, there=False)
    if name is None or name == last.subject:
        return None
    question = ask.ask(f"{kind}_also", ask.noun(scene, name))
    return Exchange(kind, question, ask.say.missing(name), (), subject=name)


def _count(ask: Asker, scene: Scene, last: Exchange) -> Exchange | None:
    name = some_name(ask, scene, there=ask.chance(0.75))
    if name is None or name == last.subject:
        return None
    found = called(scene, name)
    question = ask.ask("count_follow", ask.noun(scene, name))
    return Exchange("count", question, ask.say.number(len(found)), found, subject=name)


_SAME: dict[str, list[Make]] = {
    "side": [_side] * 8, "exists": [_exists] * 6, "where": [_where_also] * 4,
    "colour": [_colour_also] * 4, "count": [_count] * 4, "caption": [_else], "detail": [_else],
}  # fmt: skip
