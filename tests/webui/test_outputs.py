"""A page that works only on the outputs that an event changes."""

import asyncio
from typing import Any

import gradio as gr
import pytest

from webui.outputs import ChangedOutputs

SKIPPED = {"__type__": "update"}


def answered(patch: pytest.MonkeyPatch, returned: Any, made: list[str]) -> list[Any]:
    """What an event of three boxes answers, whose handler returns this (keys: a, b, c).

    ``made`` gets the labels of components that are made meanwhile.
    """
    with ChangedOutputs(analytics_enabled=False) as page:
        boxes = {name: gr.Textbox(label=name) for name in "abc"}
        value = (
            {boxes[k]: v for k, v in returned.items()} if isinstance(returned, dict) else returned
        )
        page.load(lambda: value, None, list(boxes.values()))

    make = gr.Textbox.__init__

    def counting(self: gr.Textbox, *given: Any, **how: Any) -> None:
        made.append(how["label"])
        make(self, *given, **how)

    patch.setattr(gr.Textbox, "__init__", counting)
    return list(asyncio.run(page.process_api(0, [], None))["data"])


@pytest.mark.parametrize(
    ("returned", "data", "made"),
    [
        ({"b": "words"}, [SKIPPED, "words", SKIPPED], []),
        ({"c": gr.update(value="x", lines=3), "a": "y"},
         ["y", SKIPPED, {**SKIPPED, "lines": 3, "value": "x"}], ["c"]),
        ({"a": gr.skip(), "b": gr.skip()}, [SKIPPED] * 3, []),
        (("1", "2", "3"), ["1", "2", "3"], []),
        (("1", gr.skip(), "3"), ["1", SKIPPED, "3"], ["b"]),
    ],
)  # fmt: skip
def test_what_an_event_does_not_change_is_not_made_anew(
    monkeypatch: pytest.MonkeyPatch, returned: Any, data: list[Any], made: list[str]
) -> None:
    anew: list[str] = []
    assert answered(monkeypatch, returned, anew) == data
    assert anew == made


def test_an_output_that_the_event_does_not_have_is_gradios_own_error() -> None:
    with ChangedOutputs(analytics_enabled=False) as page:
        mine, other = gr.Textbox(), gr.Textbox()
        page.load(lambda: {other: "x"}, None, [mine])
    with pytest.raises(ValueError, match="not specified as output"):
        asyncio.run(page.process_api(0, [], None))
