"""What the page shows, as HTML: turns, the running answer, the list of chats, the model.

Every text of a user or a model goes through :func:`html.escape`; nothing else writes it. The panel
is plain HTML and no ``gr.Chatbot``: only the running turn is sent while it grows, buttons carry
translated names, and turn ids stand in ``data-id`` attributes that the server checks again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from typing import Any

from instructblip.engine.base import ModelCard, Phase
from webui.i18n import coded_text, localised, place_text, text
from webui.store import Chat, Turn
from webui.view import LISTED, MOST_LISTED

_CHINESE = re.compile("[\u4e00-\u9fff]")
_ICONS = {
    "copy": "M9 9h10v12H9zM5 15V3h10",
    "retry": "M20 11a8 8 0 1 0-2.3 5.7M20 4v7h-7",
    "undo": "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
    "edit": "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
    "rename": "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
    "delete": "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
    "new": "M12 5v14M5 12h14",
    "theme": "M12 3a9 9 0 1 0 9 9 7 7 0 0 1-9-9z",
    "leave": "M14 4H6v16h8M11 12h10M17 8l4 4-4 4",
    "scene": "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
}


def icon(name: str) -> str:
    """An inline drawing; decoration only, its button carries the name."""
    return (
        '<svg viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" '
        f'stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"><path d="{_ICONS[name]}"/></svg>'
    )


def button(act: str, name: str, *, label: str = "", kind: str = "icon", **data: str) -> str:
    """A button that ``page.js`` sends to the server (or does itself) as action ``act``."""
    attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    inside = label or icon(act)
    return (
        f'<button type="button" class="{kind}" data-act="{act}"{attributes} '
        f'aria-label="{escape(name)}" title="{escape(name)}">{inside}</button>'
    )


def picture_url(picture_id: str) -> str:
    """Relative, so that it works below any path prefix of a proxy."""
    return f"pictures/{escape(picture_id)}"


# --- turns -----------------------------------------------------------------------------------------


def history(
    turns: Sequence[Turn],
    versions: Mapping[str, Sequence[str]],
    card: ModelCard,
    language: str,
    *,
    chat: Chat | None,
) -> str:
    """All finished turns of the shown path. ``versions``: turn id → ids of it and its siblings."""
    shown = []
    before = ""
    for number, turn in enumerate(turns):
        is_last = number == len(turns) - 1
        if not turn.readable:
            shown.append(unreadable(turn, versions.get(turn.id, ()), language))
            continue
        shown.append(
            '<article class="turn">'
            + question(turn, before, language, undo=is_last)
            + answer(turn, versions.get(turn.id, (turn.id,)), card, language)
            + "</article>"
        )
        before = turn.picture_id
    mark = (
        f'data-chat="{escape(chat.id)}" data-title="{escape(chat.title)}"'
        if chat
        else 'data-chat=""'
    )
    return f'<div class="turns" {mark}>{"".join(shown)}</div>'


def question(turn: Turn, before: str, language: str, *, undo: bool, acts: bool = True) -> str:
    """The user's side of a turn, with its own picture."""
    size = "same" if turn.picture_id == before else "first"
    alt = escape(text(language, "question_picture"))
    url = picture_url(turn.picture_id)
    buttons = ""
    if acts:
        buttons = button("edit", text(language, "edit"), id=turn.id)
        if undo:
            buttons = button("undo", text(language, "undo"), id=turn.id) + buttons
        buttons = f'<span class="acts">{buttons}</span>'
    return (
        f'<div class="question">{buttons}<div class="bubble">'
        f'<a class="thumb {size}" href="{url}" target="_blank" rel="noopener">'
        f'<img src="{url}" alt="{alt}" loading="lazy"></a>'
        f'<div class="words">{escape(turn.question)}</div></div></div>'
    )


def answer(turn: Turn, versions: Sequence[str], card: ModelCard, language: str) -> str:
    """The model's side of a finished turn: text, notes, versions, statistics, buttons."""
    words = escape(turn.answer)
    if not turn.answer and turn.finish == "stop":
        words = f"<i>{escape(text(language, 'finish_empty'))}</i>"
    body = f'<div class="words">{words}</div>' if words else ""
    foot = _versions(turn, versions, language)
    if line := statistics(turn.statistics, language, _beams(turn)):
        foot += f'<span class="stats">{escape(line)}</span>'
    foot += '<span class="acts">'
    if turn.answer:
        foot += button("copy", text(language, "copy"))
    foot += button("retry", text(language, "retry"), id=turn.id) + "</span>"
    return (
        f'<div class="answer" data-finish="{escape(str(turn.finish))}">{body}'
        f'{_notes(turn, card, language)}<div class="foot">{foot}</div></div>'
    )


def unreadable(turn: Turn, versions: Sequence[str], language: str) -> str:
    """A turn whose question is lost: it says so in its place, and leads to its other versions."""
    return (
        f'<article class="turn"><div class="answer" data-finish="{escape(str(turn.finish))}">'
        f'<p class="note bad">{escape(text(language, "turn_damaged"))}</p>'
        f'<div class="foot">{_versions(turn, versions, language)}</div></div></article>'
    )


def running(turn: Turn, before: str, snapshot: Any, language: str) -> str:
    """The turn that is being answered: its state, and the text or the progress so far."""
    state = _state(turn, snapshot, language)
    body = ""
    if snapshot is not None and snapshot.text:
        words = escape(snapshot.text)
        body = f'<div class="words">{words}<span class="caret"></span></div>'
    elif snapshot is not None and snapshot.progress > 0:
        name = escape(text(language, "progress"))
        body = f'<progress max="1" value="{snapshot.progress:.3f}" aria-label="{name}"></progress>'
    return (
        '<article class="turn live">'
        + question(turn, before, language, undo=False, acts=False)
        + f'<div class="answer">{body}<div class="foot"><span class="state">'
        f'<span class="dots" aria-hidden="true"></span>{escape(state)}</span></div></div></article>'
    )


def _state(turn: Turn, snapshot: Any, language: str) -> str:
    """The place in line, the phase, or how far a beam search has come."""
    if snapshot is None:
        return text(language, "phase_waiting")
    if snapshot.phase == Phase.WAITING and snapshot.place > 0:
        left = snapshot.due - time.monotonic()
        return place_text(language, snapshot.place, left if left > 0 else None)
    if snapshot.progress > 0 and not snapshot.text:
        percent = f"{100 * snapshot.progress:.0f}"
        return text(language, "phase_beams", beams=_beams(turn), percent=percent)
    phase = str(getattr(snapshot.phase, "value", snapshot.phase))
    return text(language, f"phase_{phase if phase != 'done' else 'decode'}")


def _beams(turn: Turn) -> int:
    """How many beams the turn was answered with; 1 is none."""
    return int(turn.parameters.get("sampling", {}).get("num_beams", 1))


def statistics(values: Mapping[str, float], language: str, beams: int = 1) -> str:
    """Time to first token and speed in one line; empty when there was no token.

    The answer of a beam search comes whole: its time is that of the answer.
    """
    count = int(values.get("new_tokens", 0))
    if not count:
        return ""
    decode = values.get("decode", 0.0)
    first = _seconds(values.get("first_token", 0.0))
    if beams > 1:
        line = text(language, "stats_beams", time=first, beams=beams, count=count)
    elif count == 1:
        line = text(language, "stats_one", first=first)
    elif decode > 0:
        speed = (
            f"{(count - 1) / decode:.0f}"
            if (count - 1) / decode >= 10
            else f"{(count - 1) / decode:.1f}"
        )
        line = text(language, "stats", first=first, speed=speed, count=count)
    else:
        line = text(language, "stats_short", first=first, count=count)
    if values.get("waited", 0.0) >= 1.0:
        line += " · " + text(language, "stats_waited", seconds=_seconds(values["waited"]))
    if trimmed := int(values.get("trimmed_turns", 0)):
        key = "stats_trimmed" if trimmed > 1 else "stats_trimmed_one"
        line += " · " + text(language, key, count=trimmed)
    return line


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _versions(turn: Turn, versions: Sequence[str], language: str) -> str:
    if len(versions) < 2 or turn.id not in versions:
        return ""
    at = list(versions).index(turn.id)
    label = escape(text(language, "version", number=at + 1, count=len(versions)))
    out = '<span class="versions">'
    if at > 0:
        out += button("version", text(language, "version_previous"), label="‹", id=versions[at - 1])
    out += f"<span>{label}</span>"
    if at < len(versions) - 1:
        out += button("version", text(language, "version_next"), label="›", id=versions[at + 1])
    return out + "</span>"


def _notes(turn: Turn, card: ModelCard, language: str) -> str:
    notes: list[tuple[str, str]] = []
    if turn.finish == "error":
        notes.append(("bad", coded_text(language, turn.error_code, turn.error_values, turn.error)))
    elif turn.finish == "cancelled" and not turn.answer:
        notes.append(("soft", text(language, "finish_cancelled_empty")))
    elif turn.finish in ("cancelled", "length", "deadline", "interrupted"):
        notes.append(("soft", text(language, f"finish_{turn.finish}")))
    silent = bool(card.refusals) and turn.finish == "stop" and not turn.answer.strip()
    if silent or is_refusal(turn.answer, card):
        notes.append(("outside", text(language, "outside")))
    elif _CHINESE.search(turn.question) and "zh" not in card.languages:
        known = _languages(card, language)
        notes.append(("outside", text(language, "note_language", languages=known)))
    return "".join(f'<p class="note {kind}">{escape(note)}</p>' for kind, note in notes)


def _languages(card: ModelCard, language: str) -> str:
    names = {"en": text(language, "language_en"), "zh": text(language, "language_zh")}
    return text(language, "list_comma").join(names.get(each, each) for each in card.languages)


def is_refusal(answer_text: str, card: ModelCard) -> bool:
    """Whether this answer means "outside my world", whatever its capitals and full stops."""
    said = answer_text.strip().strip(".!").casefold()
    known = {r.strip().strip(".!").casefold() for table in card.refusals.values() for r in table}
    return bool(said) and said in known


# --- the rest of the page ------------------------------------------------------------------------


def notice(message: str, kind: str = "hint") -> str:
    """A line above the input box; screen readers speak it at once."""
    return f'<div class="notice {kind}" role="alert">{escape(message)}</div>' if message else ""


def header(card: ModelCard, language: str, login: str | None = None) -> str:
    """Title, which model answers, where and under which licence, the switches, the way out."""
    facts = [card.name, card.device, card.dtype]
    if card.licence:
        facts.append(text(language, "model_licence", licence=card.licence))
    line = escape(" · ".join(facts))
    return (
        f'<header class="top"><div><h1>{escape(text(language, "title"))}</h1>'
        f'<p class="model" title="{line}">{line}</p></div><nav>'
        + button("new", text(language, "ui_new_chat"))
        + button(
            "language",
            text(language, "language_name"),
            label=text(language, "language"),
            kind="word",
        )
        + button("theme", text(language, "theme_name"))
        + (_leave(login, language) if login is not None else "")
        + "</nav></header>"
    )


def _leave(login: str, language: str) -> str:
    """A form, so that it works by itself and no link of another site does the same."""
    name = escape(text(language, "logout_name", name=login))
    return (
        '<form class="leave" method="post" action="logout"><button class="icon" '
        f'aria-label="{name}" title="{name}">{icon("leave")}</button></form>'
    )


def welcome(card: ModelCard, examples: Sequence[Any], language: str) -> str:
    """The empty chat: what to do, and example pictures with questions to click."""
    scene = f" {escape(text(language, 'welcome_scene'))}" if card.scenes else ""
    cards = ""
    for number, example in enumerate(examples):
        asks = "".join(
            button("example", q, label=escape(q), kind="chip", id=str(number), text=q)
            for q in example.questions(card.spoken(language))
        )
        alt = escape(text(language, "example_alt", number=number + 1))
        cards += f'<li><img src="{example.data_url}" alt="{alt}">{asks}</li>'
    limits = ""
    if card.refusals:  # a model that knows a small world: said before it guesses at a photograph
        world = localised(card.world, language, "")
        more = text(language, "about_more")
        known = text(language, "welcome_limits", world=world, more=more)
        limits = f'<p class="limits">{escape(known)}</p>'
    shown = (
        f'<h3>{escape(text(language, "examples"))}</h3><ul class="examples">{cards}</ul>'
        if cards
        else ""
    )
    return (
        f'<div class="turns" data-chat=""><div class="welcome"><h2>{escape(text(language, "welcome"))}</h2>'
        f"<p>{escape(text(language, 'welcome_how'))}{scene}</p>{shown}{limits}</div></div>"
    )


def strip(picture_id: str | None, offers: Sequence[str], card: ModelCard, language: str) -> str:
    """Above the box: questions that suit the picture; on narrow screens the picture itself too."""
    chips = "".join(button("ask", q, label=escape(q), kind="chip", text=q) for q in offers)
    asks = f'<div class="offers">{chips}</div>' if chips else ""
    if picture_id:
        alt = escape(text(language, "next_picture"))
        inside = f'<img src="{picture_url(picture_id)}" alt="{alt}"><span>{alt}</span>'
    else:
        inside = f"<span>{escape(text(language, 'no_picture_yet'))}</span>"
    scene = ""
    if card.scenes:
        name = text(language, "ui_new_scene")
        scene = button("scene", name, label=icon("scene") + escape(name), kind="word")
    return f'{asks}<div class="strip">{inside}{scene}</div>'


def about(card: ModelCard, language: str) -> str:
    """What the model can be asked, what it knows, its licence."""
    # A translation in full-width brackets is shown, but not asked.
    asks = "".join(
        f"<li>{button('ask', q, label=escape(q), kind='chip', text=q.split('（')[0].strip())}</li>"
        for q in localised(card.can_ask, language, ())
    )
    world = localised(card.world, language, "")
    rows = (
        ("about_model", card.name),
        ("about_device", f"{card.device}, {card.dtype}"),
        ("about_languages", _languages(card, language)),
        ("about_context", text(language, "tokens", count=card.context_length)),
        ("about_licence", card.licence),
    )
    facts = "".join(f"<dt>{escape(text(language, k))}</dt><dd>{escape(v)}</dd>" for k, v in rows)
    shown = (
        f'<h2>{escape(text(language, "asks_title"))}</h2><ul class="asks">{asks}</ul>'
        if asks
        else ""
    )
    known = f"<p>{escape(world)}</p>" if world else ""
    more = f"<p>{escape(text(language, 'about_more'))}</p>" if card.refusals else ""
    return (
        f'<div class="about">{shown}<details><summary>{escape(text(language, "about"))}</summary>'
        f"{known}<dl>{facts}</dl>{more}</details></div>"
    )


def chat_list(
    chats: Sequence[Chat], current: str | None, search: str, language: str, listed: int = LISTED
) -> str:
    """The owner's chats, today's first, ``listed`` at most; of more a button tells."""
    if not chats:
        key, values = ("chats_not_found", {"search": search}) if search else ("chats_none", {})
        return f'<p class="none">{escape(text(language, key, **values))}</p>'
    today = date.fromtimestamp(time.time())
    groups: dict[str, str] = {}
    for chat in chats[:listed]:
        key = "today" if date.fromtimestamp(chat.updated) == today else "earlier"
        here = ' aria-current="page"' if chat.id == current else ""
        title = escape(chat.title)
        ask = text(language, "delete_ask", title=chat.title)
        groups[key] = groups.get(key, "") + (
            f'<li{here}><a href="?chat={escape(chat.id)}" data-act="open" data-id="{escape(chat.id)}">{title}</a>'
            + button(
                "rename", text(language, "rename", title=chat.title), id=chat.id, text=chat.title
            )
            + button("delete", text(language, "delete", title=chat.title), id=chat.id, ask=ask)
            + "</li>"
        )
    return "".join(
        f"<h3>{escape(text(language, key))}</h3><ul class='chats'>{items}</ul>"
        for key, items in groups.items()
    ) + (_older(listed, language) if len(chats) > listed else "")


def _older(listed: int, language: str) -> str:
    if listed >= MOST_LISTED:
        return f'<p class="none">{escape(text(language, "chats_older"))}</p>'
    words = text(language, "chats_more")
    return button("more", words, label=escape(words), kind="word more")
