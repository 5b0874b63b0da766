"""Gradio's picture and text boxes, changed in what they do with files.

Gradio's own preprocessing opens files and raises English errors, and its postprocessing copies
pictures into a folder that anyone with the path can read. Here a path comes in untouched, for
``webui.uploads`` to check, and a stored picture goes out as its owner-only address.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gradio as gr
from gradio.components import Component
from gradio.data_classes import ImageData

from webui.stubs import no_stub_files

with no_stub_files():

    class OneSchema(Component):
        """Makes its JSON schema once. Gradio makes a component anew for each event that changes it,
        and its schema three times with it: a sixth of a busy server's time."""

        _schemas: ClassVar[dict[type, dict[str, Any]]] = {}

        def api_info(self) -> dict[str, Any]:
            """As Gradio's."""
            kind = type(self)
            if kind not in self._schemas:
                self._schemas[kind] = super().api_info()
            return dict(self._schemas[kind])

    class PictureBox(OneSchema, gr.Image):
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

    class QuestionBox(OneSchema, gr.MultimodalTextbox):
        """Text and files; whether a file is a picture is found out by opening it."""

        is_template = True

        def preprocess(self, payload: Any) -> Any:
            """Text and paths, of any type."""
            if payload is None:
                return None
            return {"text": payload.text, "files": [file.path for file in payload.files]}
