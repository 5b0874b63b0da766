"""An event's body: what is not exactly what a page sends does not go on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructblip.errors import BadRequest, UnknownTurn
from webui.asgi.bodies import MAX_TEXT, read_event

MINE = "/tmp/uploads/ab/p.png"


def read(**body: Any) -> dict[str, Any]:
    whole = {"session_hash": "abc123", "fn_index": 1, "data": [], **body}
    return read_event(json.dumps(whole).encode(), lambda path: path == MINE)[0]


def test_a_body_goes_on_with_what_is_known_of_it() -> None:
    found = read(
        data=["hi", None, 1.5, True, {"text": "x", "files": []}],
        trigger_id=3,
        event_data={"act": "new"},
        oauth_token="t",
        batched=True,
        simple_format=True,
    )
    assert found == {
        "session_hash": "abc123",
        "fn_index": 1,
        "trigger_id": 3,
        "data": ["hi", None, 1.5, True, {"text": "x", "files": []}],
        "event_data": {"act": "new"},
    }


def test_an_own_upload_goes_on_as_a_path_alone() -> None:
    file = {
        "path": MINE,
        "url": "http://evil.example/x",
        "orig_name": "p.png",
        "size": 5,
        "is_stream": True,
        "mime_type": "x",
        "meta": {"_type": "gradio.FileData"},
    }
    clean = {"path": MINE, "orig_name": "p.png", "meta": {"_type": "gradio.FileData"}}
    assert read(data=[{"text": "", "files": [file]}])["data"] == [{"text": "", "files": [clean]}]


FILE = {"_type": "gradio.FileData"}


@pytest.mark.parametrize(
    "file",
    [
        {"path": "http://127.0.0.1:9/x", "meta": FILE},
        {"path": MINE + "/", "meta": FILE},
        {"path": "/tmp/uploads/./ab/p.png", "meta": FILE},
        {"path": "/etc/passwd", "meta": FILE},
        {"path": ""},
        {"path": None, "meta": FILE},
        {"path": [MINE], "meta": FILE},
        {"url": "http://127.0.0.1:9/x"},
        {"meta": FILE},
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [lambda f: f, lambda f: [f], lambda f: {"files": [f]}, lambda f: {"a": {"b": [{"c": f}]}}],
)
def test_any_other_file_object_ends_the_request(file: Any, wrap: Any) -> None:
    with pytest.raises(UnknownTurn):
        read(data=["", wrap(file)])
    with pytest.raises(UnknownTurn):
        read(event_data=wrap(file))


@pytest.mark.parametrize(
    "body",
    [
        {"session_hash": None},
        {"session_hash": "ABC"},
        {"session_hash": "a" * 41},
        {"session_hash": "abc\n"},
        {"session_hash": ["abc123"]},
        {"event_id": "x"},
        {"data": "x"},
        {"data": [0] * 65},
        {"fn_index": "1"},
        {"fn_index": -1},
        {"fn_index": True},
        {"trigger_id": 2**40},
    ],
)
def test_what_a_page_never_sends(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**body)
    assert caught.value.code == "bad_event"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"data":' + b"[" * 990 + b"]" * 990 + b"}",
        b'{"data":[' + b"9" * 9000 + b"]}",
    ],
)
def test_what_is_no_body(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_event(body, lambda path: True)
    assert caught.value.code == "bad_event"


def test_a_text_too_long_is_called_that() -> None:
    with pytest.raises(BadRequest) as caught:
        read(data=[{"text": "x" * (MAX_TEXT + 1)}])
    assert caught.value.code == "text_too_long"
    assert read(data=["x" * MAX_TEXT])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["path", "url", "meta", "a", "_type", "text"]) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def paths(value: Any) -> list[Any]:
    """Every value that stands under a file's keys."""
    if isinstance(value, dict):
        own = [value[k] for k in ("path", "url") if k in value]
        return own + [p for v in value.values() for p in paths(v)]
    return [p for v in value for p in paths(v)] if isinstance(value, list) else []


@given(st.lists(VALUES, max_size=4))
def test_whatever_goes_on_names_no_file_but_own_ones(data: list[Any]) -> None:
    try:
        found = read(data=data)
    except BadRequest:
        return
    assert set(paths(found["data"])) <= {MINE}


@pytest.mark.parametrize(
    "value",
    ["[" + "1," * 5000 + "1]", "[" + '"",' * 5000 + "1]", "[" * 5000 + "]" * 5000,
     "{" + ",".join(f'"{n}":0' for n in range(5000)) + "}", r'["\\",' + '{"\\"":[]},' * 3000 + "1]"],
)  # fmt: skip
def test_many_tiny_values_are_refused_before_any_is_made(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = '{"session_hash": "abc123", "fn_index": 1, "data": [' + value + "]}"
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("it was read"))
    with pytest.raises(BadRequest) as raised:
        read_event(body.encode(), lambda path: True)
    assert raised.value.code == "bad_event"


@pytest.mark.parametrize("words", [",[{" * 30_000, '\\",' * 30_000, '"' * 90_000, "\\" * 90_000])
def test_what_a_question_consists_of_counts_as_one(words: str) -> None:
    assert read(data=[words, {"text": words}])["data"] == [words, {"text": words}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1"])
def test_other_encodings_are_refused(encoding: str) -> None:
    body = '{"session_hash": "abc123", "fn_index": 1, "data": ["é"]}'
    with pytest.raises(BadRequest):
        read_event(body.encode(encoding), lambda path: True)
