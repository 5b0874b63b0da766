"""Gradio's picture and text boxes, changed in what they do with files.

Gradio's own preprocessing opens files and raises English errors, and its postprocessing copies
pictures into a folder that anyone with the path can read. Here a path comes in untouched, for
``webui.uploads`` to check, and a stored picture goes out as its owner-only address.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from webui.stubs import no_stub_files

with no_stub_files():

    class PictureBox(gr.Image):
        """In: the uploaded file's path. Out: a picture id."""

        is_template = True  # rendered by gr.Image's own front end

        def preprocess(self, payload: ImageData | None) -> str | None:
            """The path as the browser names it; not trusted."""
            return payload.path if payload is not None else None

        def postprocess(self, value: Any) -> Any:
            """The address of a stored picture. Without Gradio's mark it is not copied anywhere."""
            if not value:
                return None
            return ImageData(path=value, url=f"pictures/{value}", orig_name="picture.png", meta={})

    class QuestionBox(gr.MultimodalTextbox):
        """Text and files; whether a file is a picture is found out by opening it."""

        is_template = True

        def preprocess(self, payload: Any) -> Any:
            """Text and paths, of any type."""
            if payload is None:
                return None
            return {"text": payload.text, "files": [file.path for file in payload.files]}
