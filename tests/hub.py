"""A stand-in for the model hub on this machine, over HTTP or HTTPS: one model's folder."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0" * 39 + "1"


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    name: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        file = path.partition(f"/{self.name}/resolve/")[2].partition("/")[2]
        if path.startswith(f"/api/models/{self.name}"):
            self._send(json.dumps(self._listing()).encode(), body)
        elif file and (self.folder / file).is_file():
            self._send((self.folder / file).read_bytes(), body)
        else:
            self._send(b"{}", body, status=404)

    def _listing(self) -> object:
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        names = [p.relative_to(self.folder).as_posix() for p in files]
        if "/tree/" in self.path:
            return [
                {"type": "file", "path": n, "size": p.stat().st_size, "oid": COMMIT}
                for n, p in zip(names, files, strict=True)
            ]
        return {"id": self.name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}

    def _send(self, data: bytes, body: bool, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def hub(folder: Path, name: str, certificate: Path | None = None) -> Iterator[str]:
    """Serve a folder as model ``name``; yields the address. ``certificate``: PEM with its key."""
    handler = type("Handler", (_Handler,), {"folder": folder, "name": name})
    server = ThreadingHTTPServer(("localhost", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
