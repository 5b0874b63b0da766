"""Whose an uploaded file is. Gradio accepts any path inside its folder from anybody."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from instructblip.errors import UnknownTurn

UPLOAD = "/gradio_api/upload"
FILES = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/")
_REMEMBERED = 20_000


class Uploads:
    """Real path → owner, for the files that came in through this server since it started."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, set[str]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, owner: str, path: str) -> None:
        """This owner uploaded this file. Equal files share a path, and so have several owners."""
        with self._lock:
            self._owners.setdefault(os.path.realpath(path), set()).add(owner)
            while len(self._owners) > _REMEMBERED:
                self._owners.popitem(last=False)

    def owns(self, owner: str, path: str) -> bool:
        """Whether this owner uploaded this very file."""
        with self._lock:
            return owner in self._owners.get(os.path.realpath(path), ())

    def read(self, owner: str, path: str) -> bytes:
        """The bytes of an owner's upload.

        Raises:
            UnknownTurn: somebody else's file, or none (``upload_foreign``).
        """
        if not self.owns(owner, path):
            raise UnknownTurn(
                "This file was not uploaded by you. Choose the picture again.",
                code="upload_foreign",
            )
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UnknownTurn(
                "The uploaded file is no longer there. Choose the picture again.",
                code="upload_gone",
            ) from error

    def take_answer(self, owner: str, body: bytes) -> None:
        """Read Gradio's answer to an upload: a JSON list of paths."""
        try:
            paths = json.loads(body)
        except ValueError:
            return
        for path in paths if isinstance(paths, list) else ():
            if isinstance(path, str):
                self.remember(owner, path)


def private_folder() -> str:
    """Have Gradio put uploads into a folder of this server alone; made by the first call.

    Its own choice is one that all users of the machine share, and it cannot even be imported where
    somebody else made that.
    """
    if not os.environ.get("GRADIO_TEMP_DIR"):
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="instructblip-")
    return os.environ["GRADIO_TEMP_DIR"]


def asked_file(path: str) -> str | None:
    """The file that a request path names, if it is one of Gradio's file routes."""
    for prefix in FILES:
        at = path.find(prefix)
        if at >= 0:
            return unquote(path[at + len(prefix) :])
    return None


def header(scope: Any, name: bytes) -> str:
    """A request header's value, or an empty text."""
    return next((v.decode("latin-1") for k, v in scope["headers"] if k.lower() == name), "")
