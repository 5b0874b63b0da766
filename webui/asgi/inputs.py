"""Which events the page has, and whether what came is what their inputs take.

Gradio answers a value that a component does not take with a 500, and prints where it failed, each
time anew and past the log's filter. Here every component is asked first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from webui.asgi.bodies import bad


class Events:
    """The events of a page that the server answers; those that run in the browser alone are none."""

    def __init__(self, page: gr.Blocks) -> None:
        self._inputs = {
            number: tuple(event.inputs)
            for number, event in page.fns.items()
            if event.fn is not None
        }

    def check(self, number: int | None, data: Sequence[Any]) -> None:
        """Check an event's number and its inputs.

        Raises:
            BadRequest: there is no such event, or a component does not take its value (``bad_event``).
        """
        inputs = self._inputs.get(-1 if number is None else number)
        if inputs is None:
            raise bad("fn_index")
        if len(data) != len(inputs):
            raise bad("data")
        for component, value in zip(inputs, data, strict=True):
            if not component.stateful and not _takes(component, value):
                raise bad("data")


def _takes(component: Any, value: Any) -> bool:
    try:
        if getattr(component, "data_model", None) and value is not None:
            value = component.data_model.model_validate(value, context={"validate_meta": True})
        component.preprocess(value)
    except Exception:  # of any kind: they are the components' own
        return False
    return True
