"""What is kept of a tab: its state, and nothing that a component looks like."""

import asyncio

import gradio as gr
import pytest
from fastapi import FastAPI

from webui.tab_state import TabState, keep_state_alone


def counting_page() -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as page:
        seen, box = gr.State(0), gr.Textbox()
        page.load(lambda n: (n + 1, f"seen {n + 1}"), [seen], [seen, box])
    return page


def test_each_tab_has_its_state_and_no_copy_of_the_page() -> None:
    app = FastAPI()
    page = counting_page()
    app = gr.mount_gradio_app(app, page, path="/")
    keep_state_alone(app, page)

    async def ask(session: str) -> str:
        state = page.state_holder[session]
        return str((await page.process_api(0, [None], state))["data"][1])

    async def story() -> list[str]:
        return [await ask(tab) for tab in ("one", "one", "two", "one")]

    assert asyncio.run(story()) == ["seen 1", "seen 2", "seen 1", "seen 3"]
    state = page.state_holder["one"]
    assert isinstance(state, TabState)
    assert not any(state.components)
    assert {"state", "textbox"} <= {c["type"] for c in page.config["components"]}  # the page's own


def test_an_app_without_gradio_is_an_error() -> None:
    with pytest.raises(LookupError):
        keep_state_alone(FastAPI(), counting_page())
