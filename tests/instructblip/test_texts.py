"""What a text may be, and what bytes are one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructblip.errors import BadParameter, BadRequest
from instructblip.texts import MAX_TEXT, checked, decode, known_encoding, one_line

ANY = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("What?", "What?"),
        ("\ufeffWhat?", "What?"),
        ("a\r\nb\rc\nd\u2028e\x85f\x0bg", "a\nb\nc\nd\ne\nf\ng"),
        ("a\0b\x07c\x7fd\x9be\tf", "abcde\tf"),
        ("\x1b[200~pasted\x1b[201~ \x1b[31mred\x1b[0m", "pasted red"),
        ("cut \ud83d", "cut ?"),
        ("\ud800", ""),
        ("\0\x1b\x07", ""),
        ("  猫 👩‍👩‍👧 é\u0301 ", "  猫 👩‍👩‍👧 é\u0301 "),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
    ],
)
def test_what_becomes_of_a_text(text: str, kept: str) -> None:
    assert checked(text) == kept


def test_a_text_too_long() -> None:
    with pytest.raises(BadRequest, match=f"more than {MAX_TEXT} characters") as caught:
        checked("猫" * (MAX_TEXT + 1))
    assert caught.value.code == "text_too_long"


@given(ANY)
def test_whatever_is_kept_can_be_stored_and_is_kept_again(text: str) -> None:
    kept = checked(text)
    kept.encode("utf-8")
    assert {c for c in kept if unicodedata.category(c) in ("Cc", "Cs")} <= {"\n", "\t"}
    assert not kept.startswith("\ufeff")
    assert checked(kept) == kept
    assert "\n" not in one_line(kept)


ROUND = [
    ("图里有什么？", "utf-8"), ("图里有什么？", "utf-8-sig"), ("图里有什么？", "utf-16"), ("图里有什么？", "utf-32"),
    ("图里有什么？", "gbk"), ("你好", "gbk"), ("左边", "gb18030"), ("𠮷字在哪里？这是什么", "gb18030"),
    ("圖裡有什麼東西？", "big5"), ("Größe", "cp1252"), ("Où est l’été", "cp1252"), ("What is it?", "utf-16-le"), ("What is it?", "utf-16-be"),
    ("plain", "ascii"), ("", "ascii"), ("Қазақ әліпбиі", "utf-8"), ("café", "cp1252"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "encoding"), ROUND)
def test_bytes_are_read_as_what_they_must_be(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Что на картинке?", "cp1251"), ("catфото слева", "cp1251"), ("何が写っていますか", "shift_jis"), ("何が写っていますか", "euc_jp"),
     ("그림에 무엇이 있습니까", "cp949"), ("Что на картинке?", "koi8-r")],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_unless_it_is_named_or_the_machine_is_set_to_it(
    text: str, encoding: str
) -> None:
    data = text.encode(encoding)
    with pytest.raises(BadRequest, match="--encoding") as caught:
        decode(data)
    assert caught.value.code == "text_encoding"
    assert decode(data, encoding).text == text
    assert decode(data, likely=encoding).text == text


@given(st.binary(max_size=80), st.sampled_from([None, "utf-8", "gb18030", "utf-16"]), st.booleans())
def test_any_bytes_are_a_text_or_refused(data: bytes, named: str | None, cut: bool) -> None:
    told = ""
    try:
        decode(data, named, cut=cut)
    except BadRequest as error:
        told = f"{error.code} {error}"
    assert not told or (told.startswith("text_encoding") and "byte 0x" in told)


ALPHABET = st.sampled_from("aZ ?,\n1éßñąşơǎșАяёΩπאب猫图？😀☂") | st.characters(
    min_codepoint=0x09, max_codepoint=0x7F
)


@given(st.text(ALPHABET, max_size=60), st.integers(0, 3))
def test_whatever_is_utf_8_is_read_as_it(text: str, lost: int) -> None:
    data = text.encode()
    assert decode(data).text == text
    cut = data[: max(len(data) - lost, 0)]
    assert text.startswith(decode(cut, cut=True).text)


@pytest.mark.parametrize("text", ["图片", "什么", "一", "什么图片"])
def test_chinese_that_looks_like_strange_letters_of_utf_8(text: str) -> None:
    text.encode("gbk").decode("utf-8")  # as it does
    assert decode(text.encode("gbk")).text == text


@pytest.mark.parametrize("name", ["base64", "rot13", "nonsense", "", "utf\0", "undefined"])
def test_an_encoding_that_is_none(name: str) -> None:
    with pytest.raises(BadParameter) as caught:
        known_encoding(name)
    assert caught.value.code == "encoding_unknown"
    assert known_encoding("GBK") == "gbk"
