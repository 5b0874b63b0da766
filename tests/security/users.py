"""Many users at once over plain HTTP, as cheap as can be: they share the cores with the server."""

from __future__ import annotations

import asyncio
import json
import random
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from io import BytesIO
from itertools import count
from typing import Any

import httpx

from instructblip import scenes, suggestions
from tests.security.strangers import GRADIO, Stranger
from webui.examples import load_examples

TURNS = 3  # questions of a chat
SCENES = 12  # chats about generated scenes, beside those about the shipped examples
PATIENCE = 120.0  # seconds: it ends a hang, and decides nothing else
_WORDS = re.compile(
    r'class=\\?"answer\\?"(?: data-finish=\\?"\w+\\?")?><div class=\\?"words\\?">[^<]'
)
_ANSWER = re.compile(r'<div class="answer" data-finish="(\w+)"><div class="words">(.*?)</div>')
_PLAIN = ("Describe the picture.", "What is on the left?", "Is there a dog?", "What colour is it?")


@dataclass(frozen=True)
class Chat:
    """Questions about one picture: a shipped example by its number, or a file to upload."""

    example: str
    file: bytes
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What became of one question. ``wait`` is in seconds, from sending it to the first word."""

    chat: int
    turn: int
    answer: str
    wait: float
    refused: str = ""


@dataclass
class Crowd:
    """What the users have seen."""

    asked: list[Asked] = field(default_factory=list)

    def wrong(self, alone: dict[tuple[int, int], str]) -> list[Asked]:
        """Answers that are not what the same chat gives alone."""
        return [a for a in self.asked if not a.refused and a.answer != alone[a.chat, a.turn]]

    @property
    def refused(self) -> list[Asked]:
        """Questions without an answer."""
        return [a for a in self.asked if a.refused]

    @property
    def waits(self) -> list[float]:
        """Seconds until the first word, of all answers."""
        return sorted(a.wait for a in self.asked if not a.refused)


@cache
def chats() -> tuple[Chat, ...]:
    """The chats that users have; always the same ones."""
    made = []
    for number, example in enumerate(load_examples()):
        first = example.questions("en")
        made.append(Chat(str(number), b"", (*first, *_PLAIN)[:TURNS]))
    for seed in range(SCENES):
        scene = scenes.compose(seed, size=224)
        out = BytesIO()
        scene.image.save(out, "PNG")
        offered = (*suggestions.ask_suggestions(scene, ("en",)), *_PLAIN)
        made.append(Chat("", out.getvalue(), tuple(offered[:TURNS])))
    return tuple(made)


class User:
    """One user's browser with one tab. ``page``: what the page looks like, from :class:`Stranger`."""

    def __init__(self, url: str, page: Stranger) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=PATIENCE, verify=False)
        self._page, self._session = page, secrets.token_hex(6)
        self._follow = next(
            d["id"] for d in page.config["dependencies"] if d["api_name"] == "attach"
        )
        self._pulse: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def visiting(self) -> Any:
        """From opening the page to closing it."""
        try:
            (await self._http.get("/")).raise_for_status()
            await self._event("load", None, '{"chat": "new"}')
            self._pulse = asyncio.create_task(self._beat())
            yield self
        finally:
            if self._pulse is not None:
                self._pulse.cancel()
                await asyncio.wait([self._pulse])
            await self._http.aclose()

    async def chat(self, number: int, pause: Iterator[float]) -> list[Asked]:
        """A whole chat, with pauses; it ends early where a question is refused."""
        chat, seen = chats()[number], []
        await self._event("click", "chats", act={"act": "new", "id": "", "text": ""})
        for turn in range(len(chat.questions)):
            await asyncio.sleep(next(pause))
            seen.append(await self._ask(number, turn))
            if seen[-1].refused:
                break
        return seen

    async def _ask(self, number: int, turn: int) -> Asked:
        began = time.monotonic()
        try:
            told = await self._send(chats()[number], turn)
            wait, last = await self._read(began)
        except (httpx.HTTPError, ValueError) as error:
            return Asked(number, turn, "", 0.0, f"{type(error).__name__}: {error}"[:200])
        # The answer may have ended before anybody could follow it.
        for history in (last.get("data", [None])[0], told["data"][0]):
            found = _ANSWER.findall(history) if isinstance(history, str) else []
            if len(found) == turn + 1:
                finish, words = found[-1]
                refused = "" if finish in ("stop", "length") else f"ended: {finish}"
                return Asked(number, turn, unescape(words), wait, refused)
        return Asked(number, turn, "", wait, f"no answer: {str(told['data'][2])[:160]}")

    async def _send(self, chat: Chat, turn: int) -> Any:
        question = chat.questions[turn]
        if turn == 0 and chat.example:
            act = {"act": "example", "id": chat.example, "text": question}
            return await self._event("click", "history", act=act)
        files: list[dict[str, Any]] = []
        if turn == 0:
            form = {"files": ("scene.png", chat.file, "image/png")}
            answer = await self._http.post(f"{GRADIO}/upload", files=form)
            path = answer.raise_for_status().json()[0]
            files.append({"path": path, "meta": {"_type": "gradio.FileData"}})
        return await self._event("submit", "box", {"text": question, "files": files})

    async def _read(self, began: float) -> tuple[float, dict[str, Any]]:
        """Seconds until the first word, and the stream's last output."""
        body = {"data": [None], "fn_index": self._follow, "session_hash": self._session}
        (await self._http.post(f"{GRADIO}/queue/join", json=body)).raise_for_status()
        wait, query = 0.0, {"session_hash": self._session}
        async with self._http.stream("GET", f"{GRADIO}/queue/data", params=query) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not wait and _WORDS.search(line):
                    wait = time.monotonic() - began
                if '"process_completed"' in line:
                    wait = wait or time.monotonic() - began
                    return wait, json.loads(line.removeprefix("data: "))["output"]
        raise ValueError("the stream ended early")

    async def _event(
        self, kind: str, name: str | None, first: Any = None, act: dict[str, str] | None = None
    ) -> Any:
        body = {**self._page.body(name, kind, first), "session_hash": self._session}
        sent = {**body, "event_data": act} if act else body
        answer = await self._http.post(f"{GRADIO}/run/predict", json=sent)
        return answer.raise_for_status().json()

    async def _beat(self) -> None:
        """Hold the stream that tells that the tab is there; as a browser does, again if it ends."""
        while True:
            with suppress(httpx.HTTPError):
                path = f"{GRADIO}/heartbeat/{self._session}"
                async with self._http.stream("GET", path) as answer:
                    async for _ in answer.aiter_raw():
                        pass
            await asyncio.sleep(1)


async def alone(url: str, chosen: Sequence[int]) -> dict[tuple[int, int], str]:
    """The answers to these chats that one user gets who is alone: (chat, turn) → words."""
    found: dict[tuple[int, int], str] = {}
    async with User(url, Stranger(url)).visiting() as user:
        for number in chosen:
            for asked in await user.chat(number, iter(lambda: 0.0, None)):
                if asked.refused:
                    raise RuntimeError(f"a lone user was refused: {asked}")
                found[asked.chat, asked.turn] = asked.answer
    return found


async def crowd(
    url: str, users: int, seconds: float, pauses: Sequence[float], chosen: Sequence[int]
) -> Crowd:
    """So many users at once, each beginning chats until the time is over.

    Args:
        chosen: the chats that they have, numbers of :func:`chats`.
        pauses: shortest and longest pause before a question, in seconds.
    """
    seen, page, end = Crowd(), Stranger(url), time.monotonic() + seconds

    async def use(number: int) -> None:
        rng = random.Random(number)
        pause = (rng.uniform(*pauses) for _ in count())
        await asyncio.sleep(rng.uniform(0, pauses[1]))  # they do not come all at once
        try:
            async with User(url, page).visiting() as user:
                while time.monotonic() < end:
                    seen.asked += await user.chat(rng.choice(chosen), pause)
        except httpx.HTTPError as error:
            why = f"{type(error).__name__}: {error}"[:200]
            seen.asked.append(Asked(0, 0, "", 0.0, f"the page: {why}"))

    await asyncio.gather(*map(use, range(users)))
    return seen
