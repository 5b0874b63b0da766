"""What Gradio keeps of each tab: its state alone.

Gradio also keeps, and with each event makes anew, what every component of the tab looks like, for
deep links, which are closed here: half a megabyte of a tab, and a third of an event's time.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from gradio import Blocks
from gradio.routes import App
from gradio.state_holder import SessionState, StateHolder
from starlette.routing import Mount


class TabState(SessionState):
    """A tab's state without what its components look like."""

    def __init__(self, blocks: Blocks) -> None:
        page: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(page)
        self.blocks_config.config_for_block = _nothing  # type: ignore[assignment]


class TabStates(StateHolder):
    """Session hash → its state; made when it is first asked for."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = TabState(self.blocks)
        return super().__getitem__(session_id)


def keep_state_alone(app: FastAPI, page: Blocks) -> None:
    """Have Gradio's app, which is mounted in ``app`` and shows this page, keep no more than that."""
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, App):
            route.app.state_holder = TabStates()
            route.app.state_holder.set_blocks(page)
            return
    raise LookupError("Gradio's app is not mounted")


def _nothing(*_: Any) -> dict[str, Any]:
    return {}
