"""A page of whose outputs only those are worked on that an event changes.

Of every other output of an event Gradio makes a new component, to learn that nothing has changed:
of six, with each word of an answer.
"""

from __future__ import annotations

import copy
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.state_holder import SessionState

_SKIPPED = gr.skip()


class ChangedOutputs(gr.Blocks):
    """Blocks whose handlers return ``{component: value}``; what is not in there stays as it is."""

    async def postprocess_data(
        self,
        block_fn: BlockFunction,
        predictions: list[Any] | dict[Any, Any],
        state: SessionState | None,
    ) -> list[Any]:
        """As Gradio's own, which is asked about the outputs that change."""
        outputs = block_fn.outputs
        if not isinstance(predictions, dict) or not set(predictions) <= set(outputs):
            return await super().postprocess_data(block_fn, predictions, state)
        changed = {out: value for out, value in predictions.items() if value != _SKIPPED}
        made: list[Any] = []
        if changed:
            fewer = copy.copy(block_fn)
            fewer.outputs = [out for out in outputs if out in changed]
            made = await super().postprocess_data(fewer, changed, state)
        values = iter(made)
        return [next(values) if out in changed else gr.skip() for out in outputs]
