"""What the browser says when the page opens."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from webui.view import boot_values


def test_what_the_page_says_arrives() -> None:
    said = {"chat": "abc", "sampling": "[0]"}
    assert boot_values(json.dumps(said | {"more": 1})) == said
    assert boot_values("") == {"chat": "", "sampling": ""}
    assert len(boot_values(json.dumps({"sampling": "x" * 10**6}))["sampling"]) == 100_000


@given(
    st.text()
    | st.dictionaries(
        st.sampled_from(["chat", "sampling"]), st.floats() | st.lists(st.none()) | st.text()
    ).map(json.dumps)
)
@example("[" * 50_000)
@example('{"chat": ' + "[" * 50_000)
@example("1" * 5000)
def test_whatever_a_browser_says_the_page_opens(boot: str) -> None:
    values = boot_values(boot)
    assert list(values) == ["chat", "sampling"]
    assert all(isinstance(value, str) for value in values.values())
