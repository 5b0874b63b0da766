"""Events of the page. Each returns the parts to change; an error becomes a notice, never a lost text.

The server holds the truth: a :class:`View` says which chat and turn this tab shows, ids that come
from the browser are looked up under the asker's owner id, and an answer belongs to its Run, to
which :meth:`Handlers.attach` only attaches.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError, UnknownTurn
from webui import render, sampling
from webui.bounds import client_of
from webui.decoding import Decoder
from webui.examples import Example
from webui.i18n import error_text, language_of, text
from webui.intake import Intake
from webui.runs import Runs
from webui.sessions import login_of
from webui.store import Store, Turn
from webui.uploads import Uploads
from webui.view import Parts, View, Who, address_chat, boot_values

log = logging.getLogger(__name__)
Changes = dict[Any, Any]
MAX_SEARCH = 200  # characters


class Handlers:
    """The page's behaviour, bound to the backend and to the components."""

    def __init__(
        self, engine: Engine, store: Store, runs: Runs, parts: Parts, examples: list[Example],
        owner_of: Callable[[Any], str], uploads: Uploads,
        decoder: Decoder,
    ) -> None:  # fmt: skip
        self.engine, self.store, self.runs = engine, store, runs
        self.parts, self.examples = parts, examples
        self._owner_of, self._intake = owner_of, Intake(store, decoder, uploads)

    # --- opening -----------------------------------------------------------------------------------

    async def load(self, boot: str, view: View, request: gr.Request) -> Changes:
        """A page opens: show the chat of its address, else the owner's last one."""
        who, wanted = self._who(request, view), boot_values(boot)
        view.revived = False
        notice = ""
        try:
            if wanted["chat"] not in ("", "new"):
                self._open(view, who, wanted["chat"])
            elif not wanted["chat"] and (chats := self.store.chats(who.owner, limit=1)):
                self._open(view, who, chats[0].id)
        except UnknownTurn:
            notice = text(who.language, "hint_chat_gone")
        card = self.engine.card
        values = sampling.restored(wanted["sampling"], card) or sampling.defaults(card)
        changes: Changes = dict(zip(self.parts.panel, values, strict=True))
        changes.update(self._show(view, who))
        changes[self.parts.notice] = render.notice(notice)
        changes[self.parts.header] = render.header(card, who.language, login_of(who.owner))
        about = render.about(card, who.language)
        changes[self.parts.about] = changes[self.parts.about_narrow] = about
        return changes | self._box(view)

    async def search(self, words: str, view: View, request: gr.Request) -> Changes:
        """The search field of the chat list."""
        view.look_for(str(words or "")[:MAX_SEARCH])
        return {self.parts.chats: self._chats(view, self._who(request, view))}

    # --- asking ------------------------------------------------------------------------------------

    async def send(self, box: Any, view: View, request: gr.Request, *panel: Any) -> Changes:
        """The send button or Enter."""
        who = self._who(request, view)
        words = str((box or {}).get("text") or "").strip()
        files = list((box or {}).get("files") or [])
        if view.revived:  # a picture chosen before is forgotten: show what would be asked about
            view.revived = False
            return self._show(view, who) | self._hint(who, "hint_revived")
        if view.sending or self._running(view):
            view.told_to_wait = True
            return self._hint(who, "hint_running")
        view.sending = True
        changes: Changes = {}
        try:
            said = ""
            if files:
                view.picture_id, said = await self._intake.upload(who, files[-1])
                view.offers = ()
                changes.update(self._picture(view, who))
                changes[self.parts.box] = {"text": words, "files": []}
                if len(files) > 1:
                    language, name = who.language, Path(files[-1]).name
                    several = text(language, "hint_several_pictures", count=len(files), name=name)
                    said = f"{several} {said}".strip()
            if not words:
                hint = text(who.language, "hint_empty_picture" if files else "hint_empty")
                return changes | self._say(f"{said} {hint}".strip())
            if view.picture_id is None:
                return changes | self._hint(who, "hint_no_picture")
            settings = sampling.parse(panel, self.engine.card, who.language)
            await self._ask(view, who, view.leaf_id, words, view.picture_id, settings)
            changes.update(self._box(view, ""))
            note = said or self._layout_note(view, who, settings)
            return changes | self._show(view, who, picture=False) | self._say(note)
        except Exception as error:
            return changes | self._failed(who, error)
        finally:
            view.sending = False

    async def act(
        self, event: gr.EventData, request: gr.Request, view: View, *panel: Any
    ) -> Changes:
        """A button in the page's own HTML: ``{act, id, text}``, nothing of it trusted."""
        who = self._who(request, view)
        data = event._data if isinstance(event._data, dict) else {}
        name, wanted, words = (str(data.get(key) or "") for key in ("act", "id", "text"))
        try:
            if name in ("retry", "edit", "example", "undo", "version") and self._running(view):
                view.told_to_wait = True
                return self._hint(who, "hint_running_elsewhere")
            if name in ("retry", "edit", "example"):
                if view.sending:  # a double click
                    return self._box(view)
                view.sending = True
                try:
                    return await self._act_asking(name, wanted, words, view, who, panel)
                finally:
                    view.sending = False
            if name == "more":
                view.list_more()
                return {self.parts.chats: self._chats(view, who)}
            if name == "picture":
                return self._picture(view, who)
            if name == "look":
                return self._look(view, who, wanted)
            return await self._act_moving(name, wanted, words, view, who)
        except Exception as error:
            return self._failed(who, error)

    async def _act_asking(
        self, name: str, wanted: str, words: str, view: View, who: Who, panel: tuple[Any, ...]
    ) -> Changes:
        settings = sampling.parse(panel, self.engine.card, who.language)
        note = ""
        if name == "example":
            example = self.examples[int(wanted)] if wanted.isdecimal() else self.examples[0]
            questions = example.questions(self.engine.card.spoken(who.language))
            question = words if words in questions else questions[0]
            view.picture_id = await self._intake.own(who, example.data, example.path.name)
            await self._ask(view, who, view.leaf_id, question, view.picture_id, settings)
        else:
            turn = self._turn_here(view, who, wanted)
            question = turn.question
            if name == "retry":
                settings, sampled = sampling.for_retry(settings)
                if sampled:
                    used = settings.sampling.temperature
                    note = text(who.language, "retry_sampled", temperature=used)
            else:
                question = words.strip()
                if not question:
                    return self._hint(who, "hint_empty")
            await self._ask(view, who, turn.parent_id, question, turn.picture_id, settings)
        return self._show(view, who) | self._box(view) | self._say(note)

    async def _act_moving(
        self, name: str, wanted: str, words: str, view: View, who: Who
    ) -> Changes:
        draft: str | None = None
        if name == "undo":
            turn = self._turn_here(view, who, wanted)
            self.store.set_leaf(who.owner, turn.chat_id, turn.parent_id)
            view.move(turn.chat_id, turn.parent_id)
            draft = turn.question
        elif name == "version":
            turn = self._turn_here(view, who, wanted)
            self.store.set_leaf(who.owner, turn.chat_id, turn.id, descend=True)
            self._open(view, who, turn.chat_id)
        elif name == "open":
            self._open(view, who, wanted)
        elif name == "new":
            view.move(None, None)
            view.picture_id = None
        elif name == "rename":
            self.store.rename_chat(who.owner, wanted, words)
        elif name == "delete":
            self._delete(view, who, wanted)
        elif name == "scene" and self.engine.card.scenes:
            spoken = self.engine.card.spoken(who.language)
            view.picture_id, view.offers = await self._intake.scene(who, spoken)
            return self._picture(view, who) | self._say("")
        else:
            return self._box(view)
        return self._show(view, who) | self._box(view, draft) | self._say("")

    def _look(self, view: View, who: Who, shown: str) -> Changes:
        """A tab that was away: another tab may have asked, moved or deleted meanwhile."""
        new, chat_id = view.chat_id is None, view.chat_id or shown
        if view.sending or not chat_id:
            return self._box(view)
        try:
            chat = self.store.chat(who.owner, chat_id)
            self._open(view, who, chat_id) if new else view.move(chat_id, chat.leaf_id)
        except UnknownTurn:
            return self._gone(view, who)
        return self._show(view, who, picture=new) | self._box(view)

    async def stop(self, view: View) -> None:
        """The stop button: within one unit of work of the engine."""
        if run := self._running(view):
            run.stop()

    async def attach(self, view: View, request: gr.Request) -> AsyncIterator[Changes]:
        """Follow the answer of the turn that the tab shows, until it ends or the tab moves on."""
        who = self._who(request, view)
        try:
            async for changes in self._follow(view, who):
                yield changes
        except UnknownTurn:  # another tab deleted the chat
            yield self._gone(view, who)

    async def _follow(self, view: View, who: Who) -> AsyncIterator[Changes]:
        run = self._running(view)
        if run is None:
            # It may have ended between the event that started it and this one.
            yield (self._show(view, who, picture=False) if view.live_id else {}) | self._box(view)
            return
        epoch = view.epoch
        turn = self.store.turn(who.owner, run.turn_id)
        above = self.store.path_to(who.owner, turn.id)[:-1]
        before = above[-1].picture_id if above else ""
        shown = ""
        async for snapshot in run.attach():
            if view.epoch != epoch:
                # Gradio repeats a generator's last output at its end: let that change nothing.
                yield {self.parts.live: gr.skip()}
                return
            html = render.running(turn, before, snapshot, who.language)
            if html != shown and snapshot.finish is None:
                yield {self.parts.live: html}
            elif snapshot.finish is None:  # nothing new: only to notice that the page is gone
                yield {self.parts.live: gr.skip()}
            shown = html
        if view.epoch == epoch:
            said = self._say("") if view.told_to_wait else {}
            view.told_to_wait = False
            yield self._show(view, who, picture=False) | self._box(view) | said

    # --- pictures ----------------------------------------------------------------------------------

    async def take_picture(self, path: str | None, view: View, request: gr.Request) -> Changes:
        """A picture was dropped, pasted, chosen or photographed in the picture box."""
        who = self._who(request, view)
        view.choices += 1
        choice = view.choices
        try:
            picture_id, said = await self._intake.upload(who, path) if path else (None, "")
            if view.choices != choice:  # another one was chosen while this was read
                return {self.parts.notice: gr.skip()}
            view.picture_id, view.offers = picture_id, ()
            return self._picture(view, who) | self._say(said)
        except Exception as error:
            return self._picture(view, who) | self._failed(who, error)

    async def scene(self, view: View, request: gr.Request) -> Changes:
        """The button "New scene"."""
        who = self._who(request, view)
        try:
            return await self._act_moving("scene", "", "", view, who)
        except Exception as error:
            return self._failed(who, error)

    # --- inside ------------------------------------------------------------------------------------

    async def _ask(
        self, view: View, who: Who, parent_id: str | None, question: str, picture_id: str,
        settings: sampling.Settings,
    ) -> None:  # fmt: skip
        chat_id = view.chat_id or self.store.new_chat(who.owner).id
        self.runs.admit(who.client, chat_id)
        leaf = self.store.chat(who.owner, chat_id).leaf_id
        asked = {"sampling": sampling.as_dict(settings.sampling), "layout": settings.layout}
        turn = self.store.add_turn(who.owner, chat_id, parent_id, question, picture_id, asked)
        try:
            await self.runs.start(who.owner, turn, settings.sampling, settings.layout, who.client)
        except BaseException:
            # Runs.start has taken the turn back; show again what was shown.
            self.store.set_leaf(who.owner, chat_id, leaf)
            raise
        view.move(chat_id, turn.id)

    def _layout_note(self, view: View, who: Who, settings: sampling.Settings) -> str:
        """``refresh`` shows the model one picture only; say so once there are several."""
        if (settings.layout or self.engine.card.default_layout) != "refresh" or not view.leaf_id:
            return ""
        pictures = {turn.picture_id for turn in self.store.path_to(who.owner, view.leaf_id)}
        return text(who.language, "refresh_pictures") if len(pictures) > 1 else ""

    def _open(self, view: View, who: Who, chat_id: str) -> None:
        chat = self.store.chat(who.owner, chat_id)
        view.move(chat.id, chat.leaf_id)
        if chat.leaf_id:
            view.picture_id = self.store.turn(who.owner, chat.leaf_id).picture_id or None

    def _delete(self, view: View, who: Who, chat_id: str) -> None:
        for run in self.runs.running(who.owner):
            if run.chat_id == chat_id:
                run.stop()
        self.store.delete_chat(who.owner, chat_id)
        if view.chat_id == chat_id:
            view.move(None, None)
            view.picture_id = None

    def _gone(self, view: View, who: Who) -> Changes:
        """The chat of this tab was deleted: a new one in its place."""
        view.move(None, None)
        return self._show(view, who) | self._box(view) | self._hint(who, "hint_chat_gone")

    def _turn_here(self, view: View, who: Who, turn_id: str) -> Turn:
        turn = self.store.turn(who.owner, turn_id)
        if turn.chat_id != view.chat_id:
            raise UnknownTurn("That turn is of another chat. Reload the page.")
        return turn

    def _running(self, view: View) -> Any:
        return self.runs.find(view.leaf_id) if view.leaf_id else None

    def _who(self, request: gr.Request, view: View) -> Who:
        owner = self._owner_of(request)
        who = Who(owner, language_of(request), replace(client_of(request), owner=owner))
        if not view.loaded:  # the server forgot this tab, or is a new one: its address tells
            view.loaded, view.revived = True, True
            with suppress(UnknownTurn):
                self._open(view, who, address_chat(request))
        return who

    def _show(self, view: View, who: Who, *, picture: bool = True) -> Changes:
        """The whole conversation of this tab, and the list of chats."""
        card, language = self.engine.card, who.language
        chat = self.store.chat(who.owner, view.chat_id) if view.chat_id else None
        turns = self.runs.path_to(who.owner, view.leaf_id) if chat and view.leaf_id else []
        run = self._running(view)
        live = ""
        view.live_id = view.leaf_id if run is not None else None
        if run is not None and turns:
            before = turns[-2].picture_id if len(turns) > 1 else ""
            live = render.running(turns[-1], before, run.snapshot, language)
            turns = turns[:-1]
        if turns or live:
            versions = self.store.versions(who.owner, view.chat_id or "")
            shown = render.history(turns, versions, card, language, chat=chat)
        else:
            shown = render.welcome(card, self.examples, language)
        changes: Changes = {
            self.parts.history: shown,
            self.parts.live: live,
            self.parts.chats: self._chats(view, who),
        }
        return (changes | self._picture(view, who)) if picture else changes

    def _picture(self, view: View, who: Who) -> Changes:
        strip = render.strip(view.picture_id, view.offers, self.engine.card, who.language)
        return {self.parts.picture: view.picture_id, self.parts.strip: strip}

    def _chats(self, view: View, who: Who) -> str:
        found = self.store.chats(who.owner, view.search, view.listed + 1)
        return render.chat_list(found, view.chat_id, view.search, who.language, view.listed)

    def _box(self, view: View, value: str | None = None) -> Changes:
        """Send or Stop, and the text where it is to change."""
        runs = self._running(view) is not None
        update: dict[str, Any] = {"submit_btn": not runs, "stop_btn": runs}
        if value is not None:
            update["value"] = {"text": value, "files": []}
        return {self.parts.box: gr.update(**update)}

    def _say(self, message: str) -> Changes:
        return {self.parts.notice: render.notice(message)}

    def _hint(self, who: Who, key: str) -> Changes:
        return self._say(text(who.language, key))

    def _failed(self, who: Who, error: Exception) -> Changes:
        if not isinstance(error, InstructBlipError):
            log.error("an event of the page failed", exc_info=error)
        return {self.parts.notice: render.notice(error_text(who.language, error), "error")}
