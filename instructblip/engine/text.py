"""Incremental text: ids → text that never shows half a character or the start of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNKNOWN = "�"


class TextStream:
    """Turns ids into text piece by piece.

    Only a window of ids is decoded each time; what may still change (an incomplete UTF-8
    character, the beginning of a stop string) is held back.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0  # first id of the window
        self._done = 0  # ids whose text is out of the decoder
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add an id; returns the text that is now certain."""
        self._ids.append(token)
        before = self._decode(self._ids[self._window : self._done])
        after = self._decode(self._ids[self._window :])
        if after.endswith(_UNKNOWN) or len(after) <= len(before):
            return ""
        self._window, self._done = self._done, len(self._ids)
        return self._release(self._held + after[len(before) :])

    def finish(self) -> str:
        """The rest, when no further id comes."""
        before = self._decode(self._ids[self._window : self._done])
        rest = self._decode(self._ids[self._window :])[len(before) :]
        piece = self._release(self._held + rest)
        if not self.stopped:
            self.text += self._held
            piece, self._held = piece + self._held, ""
        return piece

    def _release(self, text: str) -> str:
        """Cut at a stop string; hold back a tail that may begin one."""
        cuts = [at for at in (text.find(s) for s in self._stop) if at >= 0]
        if cuts:
            self.stopped = True
            text, self._held = text[: min(cuts)], ""
        else:
            hold = max((_overlap(text, s) for s in self._stop), default=0)
            text, self._held = text[: len(text) - hold], text[len(text) - hold :]
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest tail of ``text`` that begins ``stop``."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
