"""Lines that are typed into a terminal or come from a pipe, in whatever encoding they come."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from instructblip.texts import checked, decode, undecoded, unreadable

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's begins with one of them


class Lines:
    """The lines of a text stream, each checked as a text.

    Args:
        stream: such as ``sys.stdin``.
        encoding: the one that the user named; told by the bytes where none is.
        tell: gets a sentence when lines turn out to be in another encoding than expected.
    """

    def __init__(self, stream: Any, encoding: str | None, tell: Callable[[str], None]) -> None:
        self._stream, self._named, self._tell = stream, encoding, tell
        self._likely = codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name
        self._first, self._keeps_bytes = True, False
        if hasattr(stream, "reconfigure"):
            # Where something was read from it already it stays as it is.
            with suppress(io.UnsupportedOperation):
                stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
                self._keeps_bytes = True

    def readline(self) -> str | None:
        """The next line without spaces around it; None at the end.

        Raises:
            BadRequest: ``text_encoding``, ``text_too_long``. The line after it can be read.
        """
        line = self._stream.readline()
        if self._first:
            self._first = False
            line = self._unfolded(line)
        if not line:
            return None
        data = undecoded(line)
        if self._keeps_bytes and not line.isascii():
            data = line.encode("utf-8", "surrogateescape")
        return checked(line if data is None else self._decoded(data)).strip()

    def _unfolded(self, line: str) -> str:
        """A stream whose letters take two bytes or four is read whole: its line ends do too."""
        data = undecoded(line) or b""
        named = self._named or ""
        if not data.startswith(_WIDE) and not named.startswith(("utf-16", "utf-32")):
            return line
        whole = (line + self._stream.read()).encode("utf-8", "surrogateescape")
        self._stream = io.StringIO(decode(whole, self._named).text)
        self._keeps_bytes = False
        return self._stream.readline()

    def _decoded(self, data: bytes) -> str:
        if data.startswith(_WIDE) and self._named is None:  # no mark stands within a stream
            raise unreadable(data)
        found = decode(data.rstrip(b"\r\n"), self._named, self._likely)
        if self._named is None and found.encoding not in ("utf-8", self._likely):
            self._likely = found.encoding  # told once; the lines to come are likely the same
            shown = found.encoding.upper()
            self._tell(
                f"(This line is not UTF-8 and was read as {shown}. If your terminal is set to "
                f"that, start with --encoding {found.encoding}, so that answers are written in it "
                "too.)"
            )
        return found.text
