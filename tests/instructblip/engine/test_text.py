"""Text that streams: never half a character, never the beginning of a stop string."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from instructblip.engine.text import TextStream


def decode_bytes(ids: Sequence[int]) -> str:
    """A byte is an id, as with byte fallback."""
    return bytes(ids).decode("utf-8", errors="replace")


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="�")


@given(
    st.text(st.sampled_from("ab狗é"), max_size=40) | st.text(CHARACTERS, max_size=40),
    st.lists(st.text(st.sampled_from("ab狗é"), min_size=1, max_size=4), max_size=3),
)
def test_pieces_join_to_the_text_up_to_the_stop_string(text: str, stops: list[str]) -> None:
    stream = TextStream(decode_bytes, stops)
    pieces = []
    for byte in text.encode():
        pieces.append(stream.push(byte))
        assert "�" not in pieces[-1]
        if stream.stopped:
            break
    pieces.append(stream.finish())
    # The stop string that is complete first ends the text; of two, the one that began first.
    found = [(at + len(s), at) for at, s in ((text.find(s), s) for s in stops) if at >= 0]
    assert "".join(pieces) == (text[: min(found)[1]] if found else text)
    assert stream.text == "".join(pieces)


def test_the_start_of_a_stop_string_is_held_back_and_released() -> None:
    stream = TextStream(decode_bytes, ("END",))
    assert [stream.push(b) for b in b"a EN"] == ["a", " ", "", ""]
    assert stream.push(ord("x")) == "ENx"


def test_half_a_character_is_never_shown() -> None:
    stream = TextStream(decode_bytes)
    assert [stream.push(b) for b in "狗".encode()] == ["", "", "狗"]
