"""The look: Gradio theme, style sheet, script, and what the mount must be told."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from instructblip.images import SUFFIXES
from webui.i18n import LANGUAGES, messages

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("files.js", "page.js", "box.js")
# Installed fonts only: nothing is fetched. The CJK names cover Windows, macOS, Linux, Android.
FONTS = (
    "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC",
    "sans-serif",
)  # fmt: skip
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
# What page.js says itself.
_SCRIPT_KEYS = (
    "title", "log", "copy", "copied", "edit_save", "edit_cancel", "edit_label", "rename_ask", "send",
    "stop", "attach", "remove_file", "camera", "upload", "paste", "clear_picture", "next_picture",
    "menu_open", "menu_close", "connection_lost", "toast_type", "toast_size", "toast_error",
    "toast_warning", "toast_info", "toast_busy", "toast_broken", "toast_refused", "fullscreen",
    "hint_uploading",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """A quiet theme with one accent colour."""
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=FONTS, font_mono=MONO
    ).set(
        body_background_fill="*background_fill_primary",
        block_border_width="1px",
        block_shadow="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        # Gradio's own grey has a contrast of 2.6 on white; this has 4.8.
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_500",
        block_info_text_color="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


@cache
def script(language: str = "") -> str:
    """The scripts of ``static/`` with their messages in both languages, as an inline script element.

    ``language`` is the page's until a visitor chooses one; empty follows the browser.
    """
    table = {
        each: {key: messages(each)[key] for key in _SCRIPT_KEYS} | {"box": messages(each)["ui_box"]}
        for each in LANGUAGES
    }
    # "<" is escaped so that no message can end the script element.
    inserted = json.dumps(table, ensure_ascii=False).replace("<", "\\u003c")
    source = "".join((_STATIC / name).read_text("utf-8") for name in _SCRIPTS)
    source = source.replace("/*TEXT*/ {}", inserted)
    source = source.replace('/*DEFAULT*/ ""', json.dumps(language))
    source = source.replace("/*SUFFIXES*/ []", json.dumps(SUFFIXES))
    return f"<script>{source}</script>"


def translations() -> gr.I18n:
    """The ``ui_`` messages for the browser; zh also under the names that browsers send."""
    tables = {
        language: {k: v for k, v in messages(language).items() if k.startswith("ui_")}
        for language in LANGUAGES
    }
    return gr.I18n(
        en=tables["en"], zh=tables["zh"], **{"zh-CN": tables["zh"], "zh-TW": tables["zh"]}
    )


def page_look() -> dict[str, Any]:
    """Keyword arguments for ``gr.mount_gradio_app`` that belong to the look of the page."""
    return {
        "theme": theme(),
        "css_paths": [_STATIC / "page.css"],
        "i18n": translations(),
        "footer_links": [],
        "run_history": False,
    }


class EarlyScript:
    """ASGI middleware: puts ``page.js`` first into the page's ``<head>``.

    Gradio inserts its own ``head`` only after it has chosen the language and drawn the theme, too
    late for a script that decides both.
    """

    def __init__(self, app: Any, language: str = "") -> None:
        self.app = app
        self.script = script(language).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Rewrite HTML answers to GET; everything else passes untouched."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] | None = None
        body = b""

        async def rewrite(message: dict[str, Any]) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_html(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    body = body.replace(b"<head>", b"<head>" + self.script, 1)
                    headers = [h for h in start["headers"] if h[0].lower() != b"content-length"]
                    headers.append((b"content-length", str(len(body)).encode()))
                    await send({**start, "headers": headers})
                    await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, rewrite)


def _is_html(message: dict[str, Any]) -> bool:
    """Whole pages only; a compressed body cannot be rewritten."""
    headers = {key.lower(): value for key, value in message.get("headers", [])}
    return (
        headers.get(b"content-type", b"").startswith(b"text/html")
        and b"content-encoding" not in headers
    )
