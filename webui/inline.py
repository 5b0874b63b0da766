"""Gradio's events without its twenty hops: values are converted where the event is handled.

Gradio hands every input and every output of an event to a thread, one after the other, though that
only turns a text into a text; each waits for the server's loop again, so that on a busy server one
question waited twenty times. None of the components of this page takes longer than a hop: pictures
are read in processes of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from gradio import blocks
from gradio.components import Component

_INLINE = ("preprocess", "postprocess")


class _ToThread:
    """``anyio.to_thread`` for everything but a component's conversions."""

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio.to_thread, name)

    async def run_sync(self, function: Callable[..., Any], *given: Any, **how: Any) -> Any:
        """The function's result."""
        of = getattr(function, "__self__", None)
        name = function.__name__ if inspect.ismethod(function) else ""
        if name in _INLINE and isinstance(of, Component):
            return function(*given)
        return await anyio.to_thread.run_sync(function, *given, **how)


class _Anyio:
    to_thread = _ToThread()

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)


def convert_inline() -> None:
    """Have Gradio do so from now on; any number of times."""
    blocks.anyio = _Anyio()  # type: ignore[assignment]
