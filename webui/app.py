"""Blocks: what is on the page, and which event goes where."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from instructblip.engine.base import Engine, ModelCard
from instructblip.images import SUFFIXES
from webui import presets, render, sampling
from webui.components import PictureBox, QuestionBox
from webui.decoding import Decoder
from webui.examples import load_examples
from webui.handlers import Handlers
from webui.outputs import ChangedOutputs
from webui.runs import Runs
from webui.store import Store
from webui.theme import translations
from webui.uploads import Uploads
from webui.view import Parts, View

# Every button in our HTML carries data-act; page.js decides what the browser does itself.
_DELEGATE = "element.addEventListener('click', (event) => window.page.act(event, trigger));"

# Cheap events skip Gradio's queue: waiting happens in our own line, with a place.
_CHEAP: dict[str, Any] = {
    "queue": False, "show_progress": "hidden", "api_visibility": "private",
    "trigger_mode": "multiple",
}  # fmt: skip
_BEAMS = ("num_beams", "length_penalty")  # fields that are folded away


def build_page(
    engine: Engine,
    store: Store,
    runs: Runs,
    owner_of: Callable[[Any], str],
    uploads: Uploads,
    decoder: Decoder,
) -> gr.Blocks:
    """The whole page. ``server.create_app`` mounts it with ``theme.page_look()``."""
    card = engine.card
    with ChangedOutputs(title="InstructBLIP", fill_width=True, analytics_enabled=False) as page:
        view = gr.State(View())
        boot = gr.Textbox(visible=False)
        t = translations()
        with gr.Sidebar(open=False, width=300):
            new_chat = gr.Button(t("ui_new_chat"), variant="primary", elem_id="new-chat")
            search = gr.Textbox(
                label=t("ui_search"),
                placeholder=_i18n(t("ui_search_hint")),
                container=False,
                elem_id="search",
            )
            chats = _html("chats")
            preset, panel, reset = _panel(card, t)
            about_narrow = _html("about-narrow", render.about(card, "en"))  # no right column there
        with gr.Row(elem_id="main", equal_height=False):
            with gr.Column(scale=7, elem_id="talk"):
                header = _html("header", render.header(card, "en"))
                with gr.Column(elem_id="log"):
                    history = _html("history")
                    live = _html("live")
                notice = _html("notice")
                strip = _html("strip")
                box = QuestionBox(
                    label=t("ui_box"), placeholder=_i18n(t("ui_box_hint")), show_label=False, container=False,
                    file_types=["image", *SUFFIXES], file_count="multiple", sources=["upload"], max_lines=8,
                    max_plain_text_length=100_000, autofocus=False, elem_id="box",
                )  # fmt: skip
            with gr.Column(scale=3, elem_id="side"):
                picture = PictureBox(
                    label=t("ui_picture"), sources=["upload", "webcam", "clipboard"], type="filepath",
                    height=300, interactive=True, buttons=["fullscreen"], elem_id="picture",
                )  # fmt: skip
                scene = gr.Button(t("ui_new_scene"), visible=card.scenes, elem_id="scene")
                about = _html("about", render.about(card, "en"))

        parts = Parts(
            header, history, live, notice, strip, box, picture, about, about_narrow, chats, panel
        )
        handlers = Handlers(engine, store, runs, parts, load_examples(), owner_of, uploads, decoder)
        _wire(page, handlers, parts, view, boot, search, new_chat, scene)
        _wire_panel(preset, panel, reset, card)
    return page


def _panel(card: ModelCard, t: gr.I18n) -> tuple[gr.Radio, tuple[Any, ...], gr.Button]:
    """The answer settings: presets, fields, and a button that goes back to the model's own."""
    values = dict(zip(sampling.FIELDS, sampling.defaults(card), strict=True))
    with gr.Accordion(t("ui_settings"), open=False, elem_id="settings"):
        preset = gr.Radio(
            choices=[(t(f"ui_preset_{name}"), name) for name in presets.presets(card)],
            value="standard", label=t("ui_preset"), info=t("ui_preset_info"), elem_id="preset",
            interactive=True,
        )  # fmt: skip
        fields = {n: _field(n, values[n], card, t) for n in sampling.FIELDS if n not in _BEAMS}
        with gr.Accordion(t("ui_beam_search"), open=False, elem_id="beam-search"):
            fields |= {name: _field(name, values[name], card, t) for name in _BEAMS}
        reset = gr.Button(t("ui_reset"), size="sm", elem_id="reset")
    return preset, tuple(fields[name] for name in sampling.FIELDS), reset


def _field(name: str, value: Any, card: ModelCard, t: gr.I18n) -> Any:
    """One of the answer settings. Free numbers, so that a wrong one can be explained."""
    common: dict[str, Any] = {
        "label": t(f"ui_{name}"), "info": t(f"ui_{name}_info"), "value": value,
        "elem_id": f"set-{name}", "interactive": True,
    }  # fmt: skip
    if name == "layout":
        return gr.Dropdown(choices=list(card.layouts), **common)
    if name in ("seed", "stop"):
        return gr.Textbox(lines=2 if name == "stop" else 1, **common)
    return gr.Number(**common)


def _wire(
    page: gr.Blocks,
    handlers: Handlers,
    parts: Parts,
    view: gr.State,
    boot: gr.Textbox,
    search: gr.Textbox,
    new_chat: gr.Button,
    scene: gr.Button,
) -> None:
    panel = list(parts.panel)
    talk = [
        parts.history,
        parts.live,
        parts.notice,
        parts.strip,
        parts.box,
        parts.picture,
        parts.chats,
    ]
    cheap = _CHEAP
    follow: dict[str, Any] = {
        "fn": handlers.attach, "inputs": [view], "outputs": talk, "show_progress": "hidden",
        "api_visibility": "private", "concurrency_limit": None,
    }  # fmt: skip
    opened = page.load(
        handlers.load,
        [boot, view],
        [*talk, parts.header, parts.about, parts.about_narrow, *panel],
        js="(_, view) => [window.page.boot(), view]",
        **cheap,
    )
    opened.then(None, js="() => window.page.restoreDraft()", queue=False)
    opened.then(**follow)
    parts.box.submit(handlers.send, [parts.box, view, *panel], talk, **cheap).then(**follow)
    parts.box.stop(handlers.stop, [view], None, **cheap)
    for html in (
        parts.header,
        parts.history,
        parts.strip,
        parts.about,
        parts.about_narrow,
        parts.chats,
    ):
        html.click(handlers.act, [view, *panel], talk, **cheap).then(**follow)
    parts.picture.input(handlers.take_picture, [parts.picture, view], talk, **cheap)
    scene.click(handlers.scene, [view], talk, **cheap)
    new_chat.click(
        None,
        None,
        None,
        js="() => document.querySelector('.top [data-act=new]').click()",
        queue=False,
    )
    search.change(
        handlers.search, [search, view], [parts.chats], **cheap | {"trigger_mode": "always_last"}
    )


def _wire_panel(
    preset: gr.Radio, panel: tuple[Any, ...], reset: gr.Button, card: ModelCard
) -> None:
    """The answer settings keep and fill themselves in the browser."""
    fields = list(panel)
    table, own = json.dumps(presets.rows(card)), json.dumps(sampling.defaults(card))
    # Whoever changes a field, a preset, the server or the visitor: it is kept, and its preset shown.
    keep = f"(...values) => window.page.keepSampling(values, {table})"
    for component in fields:
        component.change(None, fields, [preset], js=keep, **_CHEAP)
    fill = f"(name, ...values) => ({table})[name].map((value, i) => value ?? values[i])"
    preset.input(None, [preset, *fields], fields, js=fill, **_CHEAP)
    reset.click(None, None, fields, js=f"() => {own}", **_CHEAP)


def _html(name: str, value: str = "") -> gr.HTML:
    return gr.HTML(
        value, elem_id=name, js_on_load=_DELEGATE, apply_default_css=False, padding=False
    )


def _i18n(data: Any) -> Any:
    """Placeholders are typed as text; Gradio translates them like labels all the same."""
    return data
