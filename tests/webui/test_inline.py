"""Values of events are converted where the event is handled; everything else goes on as it did."""

import asyncio
import threading
from typing import Any

import gradio as gr
import pytest
from gradio import blocks

from webui.inline import convert_inline


def test_values_are_converted_in_the_loops_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "anyio", blocks.anyio)  # is put back afterwards
    convert_inline()
    converted: list[threading.Thread] = []
    ran: list[threading.Thread] = []

    def preprocess(self: gr.Textbox, payload: Any) -> Any:
        converted.append(threading.current_thread())
        return payload

    def postprocess(self: gr.Textbox, value: Any) -> Any:
        converted.append(threading.current_thread())
        return value

    monkeypatch.setattr(gr.Textbox, "preprocess", preprocess)
    monkeypatch.setattr(gr.Textbox, "postprocess", postprocess)

    def double(words: str) -> str:
        ran.append(threading.current_thread())
        return words * 2

    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Textbox()
        box.change(double, box, box)

    async def handle() -> Any:
        return await page.process_api(0, ["ab"], None)

    converted.clear()  # drawing the box converts its first value
    assert asyncio.run(handle())["data"] == ["abab"]
    assert converted == [threading.current_thread()] * 2
    assert ran[0] is not threading.current_thread()  # what may take long still has a thread
