"""Files as they come in: read from the request in pieces, looked at, and kept or refused at once.

In place of Gradio's own routes: files are checked from their first bytes on, bounded for each
visitor, and a path is what this server made of it, read once and compared to the letter.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from python_multipart.multipart import MultipartParseError, MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from instructblip.errors import BadRequest, Busy, InstructBlipError, PictureError
from instructblip.imaging.boxed import is_boxed
from webui.asgi.routes import FILE, GRADIO, UPLOAD
from webui.asgi.scope import language
from webui.bounds import client_of
from webui.i18n import error_text, text
from webui.sessions import owner_of
from webui.uploads import Uploads

MAX_FILES = 32  # in one request
HEAD = 32  # bytes that tell what a file is
# How the formats begin that instructblip.images reads; HEIC and AVIF are files of boxes (ftyp).
_BEGINNINGS = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)
_MEDIA = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"BM": "image/bmp",
          b"RIFF": "image/webp", b"II": "image/tiff", b"MM": "image/tiff"}  # fmt: skip


def add_file_routes(app: FastAPI, uploads: Uploads, max_upload: int) -> None:
    """Upload, its progress, and an owner's own uploads, under Gradio's addresses.

    Args:
        max_upload: bytes of the largest file.
    """

    @app.post(UPLOAD)
    async def upload(request: Request) -> Response:
        try:
            return JSONResponse(await take_files(request, uploads, max_upload))
        except InstructBlipError as error:
            return _refused(request, error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    @app.get(f"{GRADIO}/upload_progress")
    def progress() -> Response:
        # The browser knows itself how much it has sent; nothing is kept for it here.
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    @app.api_route(FILE + "{path:path}", methods=["GET", "HEAD"])
    def file(path: str, request: Request) -> Response:
        if not uploads.owns(owner_of(request), path) or not Path(path).is_file():
            return JSONResponse({"error": text(language(request.scope), "refused_page")}, 404)
        return FileResponse(path, media_type=_media(Path(path)), headers={
            "Cache-Control": "private, max-age=3600",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Vary": "Cookie",
        })  # fmt: skip


async def take_files(request: Request, uploads: Uploads, max_upload: int) -> list[str]:
    """Read a form of files from a request; the paths that they were given.

    Raises:
        PictureError: a file is empty, too large, or no picture by its first bytes.
        BadRequest: it is no form of files (``bad_upload``).
        Busy: the visitor, or the server, holds too many uploads.
    """
    client = client_of(request)
    size = request.headers.get("content-length", "")
    if not (size.isascii() and size.isdecimal()):
        raise _bad("it does not say how long it is")
    form = _Form(request.headers.get("content-type", ""), uploads, max_upload)
    taken: list[str] = []
    with_room = uploads.reserve(client, int(size))  # refused before it is read
    try:
        async for chunk in request.stream():
            form.feed(chunk)
        form.finish()
        with_room.leave()
        for path, length in form.files:
            taken.append(uploads.take(client, path, length))
    except BaseException:
        uploads.give_back(taken)
        form.remove()
        raise
    finally:
        with_room.leave()
    return taken


class _Form:
    """A multipart form on its way to the disk; parts without a file name are passed over."""

    def __init__(self, content_type: str, uploads: Uploads, max_upload: int) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise _bad("it is no form of files")
        self.files: list[tuple[Path, int]] = []
        self._uploads, self._most = uploads, max_upload
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._file: IO[bytes] | None = None
        self._path, self._size, self._head = Path(), 0, b""
        self._ended = False
        self._parser = MultipartParser(boundary, {
            "on_part_begin": self._begin, "on_header_field": self._read_field,
            "on_header_value": self._read_value, "on_header_end": self._end_header,
            "on_headers_finished": self._open, "on_part_data": self._write,
            "on_part_end": self._close, "on_end": self._end,
        })  # fmt: skip

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise _bad("the form is damaged") from error

    def finish(self) -> None:
        """Check that the form was whole, and that there was a file in it."""
        if not self._ended:
            raise _bad("the form is cut short")
        if not self.files:
            raise _bad("there is no file in it")

    def remove(self) -> None:
        """Take back what has come."""
        if self._file is not None:
            self._file.close()
            shutil.rmtree(self._path.parent, ignore_errors=True)
        for path, _ in self.files:
            shutil.rmtree(path.parent, ignore_errors=True)

    # --- the parser's events -------------------------------------------------------------------

    def _begin(self) -> None:
        self._headers, self._field, self._value = {}, b"", b""

    def _read_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _read_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"filename")
        if name is None:
            return
        if len(self.files) >= MAX_FILES:
            raise _bad(f"there are more than {MAX_FILES} files in it")
        self._path = self._uploads.new_path(name.decode("utf-8", "replace"))
        self._file = self._path.open("wb")
        self._size, self._head = 0, b""

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            return
        piece = data[start:end]
        if len(self._head) < HEAD:
            self._head += piece[: HEAD - len(self._head)]
            if len(self._head) == HEAD:
                _check_head(self._head, self._path.name)
        self._size += len(piece)
        if self._size > self._most:
            limit = f"{self._most / 2**20:.0f}"
            raise PictureError(
                f"The file is larger than {limit} MB. Save it smaller.",
                code="upload_too_large",
                limit=limit,
            )
        self._file.write(piece)

    def _close(self) -> None:
        if self._file is None:
            return
        if not self._size:
            raise PictureError(
                "The file is empty (0 bytes). Choose another picture.", code="picture_empty"
            )
        if len(self._head) < HEAD:
            _check_head(self._head, self._path.name)
        self._file.close()
        self._file = None
        self.files.append((self._path, self._size))

    def _end(self) -> None:
        self._ended = True


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins so may be a picture; it is opened to know."""
    in_box = (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or is_boxed(head)
    return in_box or head.startswith(_BEGINNINGS)


def _check_head(head: bytes, name: str) -> None:
    if not looks_like_picture(head):
        raise PictureError(
            f"{name} is not a picture. Use PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or TIFF.",
            code="upload_kind",
            name=name,
        )


def _media(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if is_boxed(head):
        return "image/avif" if head[8:11] == b"avi" else "image/heic"
    return next((m for h, m in _MEDIA.items() if head.startswith(h)), "application/octet-stream")


def _refused(request: Any, error: InstructBlipError) -> Response:
    """Plain text: Gradio's page shows it as it is."""
    status = {"upload_kind": 415, "upload_too_large": 413}.get(error.code, 400)
    status = 429 if isinstance(error, Busy) else status
    words = error_text(language(request.scope), error)
    return PlainTextResponse(words, status, {"Cache-Control": "no-store"})


def _bad(what: str) -> BadRequest:
    return BadRequest(
        f"This upload cannot be read ({what}). Reload the page and choose the file again.",
        code="bad_upload",
        what=what,
    )
