"""What a text may be, wherever it comes in: the page, the terminal, flags, lists, titles.

=================================  ================================================================
more than 100,000 characters       refused (``text_too_long``)
bytes that are not UTF-8           read in the encoding that they must be in, else refused
                                   (``text_encoding``)
half a surrogate pair              ``?``: it cannot be stored or sent
control characters, NUL, terminal  taken out, but for tabs
escape sequences
a byte order mark at the start     taken off
line ends of any kind              ``\\n``
nothing but such characters        empty
=================================  ================================================================
"""

from __future__ import annotations

import codecs
import locale
import re
import sys
from dataclasses import dataclass

from instructblip.errors import BadParameter, BadRequest

MAX_TEXT = 100_000  # characters of one text

_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# A terminal's sequences (ECMA-48, 5.4: CSI) go as a whole, so that no "[200~" of a paste is left.
_CONTROLS = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which it starts with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings of more than one byte a character, by Python's names: what is none of their text seldom
# decodes, so a machine that is set to one is believed.
_EASTERN = {
    "gbk", "gb2312", "gb18030", "big5", "big5hkscs", "cp950", "cp932", "shift_jis", "euc_jp",
    "cp949", "euc_kr",
}  # fmt: skip
# Western letters and signs above ASCII, as people type and word processors put them.
_WESTERN = set("àâäáãåæçèéêëìíîïñòóôõöøùúûüßœÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒ’‘“”–—…€«»°¿¡§\xa0")
# Letters of two bytes in UTF-8 that are in no alphabet of many: not Latin with accents (Vietnamese,
# Romanian and pinyin among it), Greek, Cyrillic, Armenian, Hebrew or Arabic.
_UNUSUAL = re.compile(
    "[^\0-\u017f\u01a0\u01a1\u01af\u01b0\u01cd-\u01dc\u0218-\u021b\u0300-\u0333\u0386-\u03ce"
    "\u0400-\u045f\u0490\u0491\u0531-\u0587\u05d0-\u05ea\u0600-\u06ff]"
)
_CYRILLIC = re.compile("[А-я]")
_SAMPLE = 20_000  # characters or runs that are looked at to tell an encoding


# --- a text ----------------------------------------------------------------------------------------


def checked(text: str) -> str:
    """A text as it goes on, by the table above.

    Raises:
        BadRequest: ``text_too_long``.
    """
    if len(text) > MAX_TEXT:
        raise BadRequest(
            f"A text has more than {MAX_TEXT} characters. Make it shorter.",
            code="text_too_long",
            limit=MAX_TEXT,
        )
    if text.isascii() and text.isprintable():
        return text
    text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text.lstrip("\ufeff")))
    if all("\ud800" <= letter <= "\udfff" for letter in text.strip()) and text.strip():
        return ""
    return storable(text)


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: half a surrogate pair, cut by a browser, becomes ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """The text as a title: on one line, single spaces between its words."""
    return " ".join(text.split())


def from_flag(text: str) -> str:
    """A text from the command line, whose bytes Python has decoded as far as it could.

    Raises:
        BadRequest: ``text_encoding``, ``text_too_long``.
    """
    data = undecoded(text, sys.getfilesystemencoding())
    return checked(text if data is None else decode(data).text)


def undecoded(text: str, encoding: str = "utf-8") -> bytes | None:
    """The bytes of a text that was read with ``surrogateescape``, if some were not decoded."""
    if text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text):
        return None
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return None


# --- bytes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text with the encoding that it was in, by Python's name, and its byte order mark."""

    text: str
    encoding: str
    mark: bytes = b""


def decode(
    data: bytes, named: str | None = None, likely: str | None = None, *, cut: bool = False
) -> Decoded:
    """The text in bytes: UTF-8, or what else they must be.

    In this order: as a byte order mark says; UTF-16 by its zero bytes; UTF-8; an Eastern encoding
    that this machine is set to; GB18030 or Big5 where the characters are those in use; another
    encoding that this machine is set to; Windows-1252 where it looks Western. Detectors in general
    use, charset-normalizer 3.5 among them, take a Chinese question of six characters for Korean:
    they want more text than a question has.

    Args:
        data: the bytes.
        named: the encoding that the user named; no other is tried.
        likely: what the other end seems to be set to; this machine's own where nothing is known.
        cut: whether the last character may be incomplete; it is left out.

    Raises:
        BadRequest: ``text_encoding``.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark) and named is None:
            text = _as(data[len(mark) :], encoding, cut)
            if text is None:
                raise unreadable(data, encoding)
            return Decoded(text, encoding, mark)
    for encoding in [named] if named is not None else _guesses(data, likely, cut):
        text = _as(data, encoding, cut)
        if text is not None and (named is not None or _plausible(text, data, encoding)):
            return Decoded(text.removeprefix("\ufeff"), encoding)
    raise unreadable(data, named or "utf-8")


def is_utf8(data: bytes, likely: str | None = None, *, cut: bool = False) -> bool:
    """Whether bytes are UTF-8 beyond doubt. The arguments are those of :func:`decode`.

    Two bytes that are one Chinese letter may be one of UTF-8 as well: those of 图片 are two that
    nobody writes side by side, those of 猫 are an è. Where this machine is set to an Eastern
    encoding, or the letters are in no common alphabet, that is doubtful.
    """
    text = _as(data, "utf-8", cut)
    if text is None:
        return False
    if text.isascii() or max(text) > "\u07ff":
        return True
    unusual = set(_UNUSUAL.findall(text))
    if _CYRILLIC.search(text):  # beside it, its letters for other languages are usual
        unusual = {letter for letter in unusual if not "\u0460" <= letter <= "\u052f"}
    return _own(likely) not in _EASTERN and not unusual


def unreadable(data: bytes, encoding: str = "utf-8") -> BadRequest:
    """The error of bytes that are no text."""
    at = 0
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        at = min(error.start, len(data) - 1)
    shown = encoding.upper()
    return BadRequest(
        f"The text is not {shown} (byte 0x{data[at]:02x} at place {at + 1}), and which encoding it "
        "is in cannot be told. Send or save it as UTF-8, or name its encoding: --encoding gb18030, "
        "for example (for a terminal PYTHONIOENCODING=gb18030 does the same).",
        code="text_encoding",
        encoding=shown,
    )


def known_encoding(name: str) -> str:
    """Python's name of an encoding that a user named.

    Raises:
        BadParameter: ``encoding_unknown``.
    """
    try:
        "".encode(name)  # some codecs are not of text
        return codecs.lookup(name).name
    except (LookupError, UnicodeError, ValueError):
        raise BadParameter(
            f"--encoding {name!r} is no encoding that Python knows. Name one as utf-8, utf-16, "
            "gb18030, big5, shift_jis or cp1252.",
            code="encoding_unknown",
        ) from None


def _as(data: bytes, encoding: str, cut: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, not cut)
    except UnicodeError:
        return None


def _own(likely: str | None) -> str:
    try:
        return codecs.lookup(likely or locale.getencoding()).name
    except LookupError:
        return "utf-8"


def _guesses(data: bytes, likely: str | None, cut: bool) -> list[str]:
    zeros = [data[start::2].count(0) for start in (0, 1)]
    if 4 * sum(zeros) >= len(data) >= 16 and not all(zeros):
        return ["utf-16-le" if zeros[1] else "utf-16-be", "utf-8"]
    own = _own(likely)
    if not is_utf8(data, likely, cut=cut):
        eastern = [own] if own in _EASTERN else []
        return [*eastern, "gb18030", "big5", own, "utf-8", "cp1252"]
    return ["utf-8"]


def _plausible(text: str, data: bytes, encoding: str) -> bool:
    """Whether a text that was decoded without a fault consists of what people write."""
    if encoding in ("gb18030", "big5"):
        foreign = [letter for letter in text[: 50 * _SAMPLE] if not letter.isascii()][:_SAMPLE]
        usual = _usual_simplified if encoding == "gb18030" else _usual_traditional
        return usual([letter.encode(encoding) for letter in foreign])
    return encoding != "cp1252" or _is_western(data)


def _usual_simplified(letters: list[bytes]) -> bool:
    """Whether most are of GB 2312's first level (3,755 in general use: 0xB0A1 to 0xD7F9) or its signs.

    Other languages' bytes, read as GB18030, give rare ones; Korean ones alone stay below 0xC9.
    """
    pairs = [pair for pair in letters if len(pair) == 2 and pair[1] >= 0xA1]
    leads = [pair[0] for pair in pairs if 0xB0 <= pair[0] <= 0xD7]
    signs = [pair for pair in pairs if 0xA1 <= pair[0] <= 0xA3]
    korean = len(leads) >= 6 and max(leads) < 0xC9
    return bool(leads) and 2 * (len(leads) + len(signs)) > len(letters) and not korean


def _usual_traditional(letters: list[bytes]) -> bool:
    """The same of Big5 (5,401 in general use: 0xA440 to 0xC67E), where the second byte may be
    ASCII, which it never is in Korean or Japanese."""
    leads = [pair for pair in letters if len(pair) == 2 and 0xA4 <= pair[0] <= 0xC6]
    signs = [pair for pair in letters if len(pair) == 2 and 0xA1 <= pair[0] <= 0xA3]
    mixed = any(pair[1] < 0x80 for pair in leads) or len(leads) < 6
    return bool(leads) and mixed and 2 * (len(leads) + len(signs)) > len(letters)


def _is_western(data: bytes) -> bool:
    """Whether letters with accents stand between plain ones, as in Western languages alone."""
    runs = re.findall(rb"[\x80-\xff]+", data)[:_SAMPLE]
    if not runs or max(map(len, runs)) > 2:
        return False
    letters = b"".join(runs).decode("cp1252")
    return set(letters) <= _WESTERN and bool(
        re.search(rb"[A-Za-z][\xc0-\xff]|[\xc0-\xff][A-Za-z]", data)
    )
