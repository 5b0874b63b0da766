"""``python -m webui``: settings → engine → store → app → server."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError
from instructblip.quick import no_collection
from webui.ending import Ending
from webui.runs import Runs
from webui.sessions import Admission, load_key
from webui.settings import Settings, read_settings, with_login
from webui.starting import Starting
from webui.storage.database import check_file
from webui.storage.modes import make_private
from webui.store import Store
from webui.stubs import no_stub_files
from webui.uploads import private_folder

log = logging.getLogger("webui")
_TRIED_PORTS = 100


def main(
    argv: Sequence[str] | None = None, make_engine: Callable[[Settings], Engine] | None = None
) -> int:
    """Serve until SIGTERM or Ctrl-C; an error of ours is one sentence, exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        settings = _with_share_login(read_settings(argv))
        listening = listen(settings.host, settings.port)
        check_data(Path(settings.data))
        _warn_if_open(settings)
        serve(settings, make_engine or load_engine, listening)
    except InstructBlipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def load_engine(settings: Settings) -> Engine:
    """The engine of this process; torch is imported here and nowhere else in this package."""
    say(f"Loading the model ({settings.model}) …")
    with no_collection():
        from instructblip.checkpoints import import_model_code, load
        from instructblip.engine.local import LocalEngine

        import_model_code()
    model = load(
        settings.model, device=settings.device, dtype=settings.dtype, vicuna=settings.vicuna,
        bert=settings.bert, eva=settings.eva, instruct_blip=settings.instruct_blip,
    )  # fmt: skip
    memory = int(settings.kv_memory * 1e9) or None
    return LocalEngine(
        model, max_waiting=settings.max_waiting, kv_memory=memory,
        picture_memory=int(settings.picture_memory * 1e9),
    )  # fmt: skip


def serve(
    settings: Settings, make_engine: Callable[[Settings], Engine], listening: socket.socket
) -> None:
    """Run the server on a bound socket until it is told to stop.

    It answers at once; the model and the page are loaded meanwhile.

    Raises:
        InstructBlipError: the model cannot be loaded, or the data folder cannot be used.
    """
    import uvicorn

    # What is wrong with the folder is said before anything slow.
    store = Store(Path(settings.data), settings.max_upload * 2**20, settings.limits)
    load_key(Path(settings.data), store.visitors_by_cookie)
    recovered = store.recover()
    if recovered:
        say(f"{recovered} answer(s) of the last run were cut off; their text was kept.")

    given = os.environ.get("GRADIO_TEMP_DIR")
    uploads = private_folder()  # before Gradio is imported

    def load() -> Engine:
        with no_collection(), no_stub_files():
            import_module("webui.server")
        return make_engine(settings)

    def make(engine: Engine) -> Any:
        from webui.app import build_page
        from webui.server import create_app

        runs = Runs(engine, store, settings.grace, Admission(settings.per_owner))
        return create_app(settings, engine, store, runs, build_page)

    starting = Starting(
        load,
        make,
        ready=lambda engine, app: _ready(settings, engine, listening, app),
        stop=lambda: setattr(server, "should_exit", True),
    )
    ending = Ending(starting)
    config = uvicorn.Config(
        ending,
        log_level="warning",
        timeout_graceful_shutdown=1,
        root_path=settings.root_path,
        proxy_headers=True,
        ws="websockets-sansio",
        lifespan="on",
    )
    server = _server(config, ending)
    try:
        server.run(sockets=[listening])
    finally:
        store.close()
        if not given:
            shutil.rmtree(uploads, ignore_errors=True)
            os.environ.pop("GRADIO_TEMP_DIR", None)
    if starting.loading:  # half-loaded libraries do not survive an orderly end of the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    if starting.error is not None:
        raise starting.error


def _ready(settings: Settings, engine: Engine, listening: socket.socket, app: Any) -> None:
    port = listening.getsockname()[1]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host
    shown = f"[{host}]" if ":" in host else host
    card = engine.card
    say(f"{card.name} on {card.device} ({card.dtype}).")
    say(f"Open http://{shown}:{port}{settings.root_path}/ in a browser. Ctrl-C stops the server.")
    if settings.share:
        threading.Thread(target=_share, args=(settings, port, app), daemon=True).start()


def _share(settings: Settings, port: int, app: Any) -> None:
    from webui.share import advice, open_tunnel

    try:
        tunnel = open_tunnel(settings, port)
    except InstructBlipError as error:
        say(advice(str(error), port))
        return
    app.state.origins.add(tunnel.url.lower().rstrip("/"))
    app.state.tunnel = tunnel
    say(f"Share link: {tunnel.url}  (anyone with the login can chat here while this runs)")


def _with_share_login(settings: Settings) -> Settings:
    """A public link always asks for a login; one is made up if none was given."""
    if not settings.share or settings.auth:
        return settings
    password = secrets.token_urlsafe(9)
    say(f"Login for the share link: name guest, password {password}")
    return with_login(settings, "guest", password)


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything slow happens.

    Raises:
        InstructBlipError: the port is taken (the next free one is named), or the address is not ours.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        free = next(
            (p for p in range(port + 1, min(port + _TRIED_PORTS, 65536)) if _free(host, p)), 0
        )
        if not free:
            raise InstructBlipError(
                f"Cannot listen on {host}:{port}: {error.strerror}. Use another --host or --port.",
                code="address",
            ) from error
        raise InstructBlipError(
            f"Port {port} is taken ({error.strerror}). Port {free} is free: --port {free}",
            code="port_taken",
            port=port,
            free=free,
        ) from error


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _free(host: str, port: int) -> bool:
    try:
        _bind(host, port).close()
    except OSError:
        return False
    return True


def check_data(folder: Path) -> None:
    """Make the data folder and see that it can be written.

    Raises:
        InstructBlipError: it cannot (``store_unwritable``), or is not ours to write
            (``store_newer``, ``store_damaged``).
    """
    check_file(folder / "chats.sqlite3")  # a newer program's folder is left as it is
    probe = folder / f".probe-{os.getpid()}"
    try:
        make_private(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InstructBlipError(
            f"The data folder {folder} cannot be written ({error.strerror}). "
            "Name another one with --data FOLDER.",
            code="store_unwritable",
            path=str(folder),
        ) from error


def _warn_if_open(settings: Settings) -> None:
    if settings.loopback or settings.logins:
        return
    say(
        "*"
        * 78
        + f"\nWARNING: listening on {settings.host} without a login. Everybody who reaches this "
        "machine\ncan chat here and use its device. Ask for a login with --auth USER:PASS, or "
        "listen on\n127.0.0.1 and use a tunnel.\n" + "*" * 78
    )


def say(words: str) -> None:
    """A line for the person at the terminal."""
    print(words, flush=True)


def _server(config: Any, ending: Ending) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        """Ends as asked, with exit code 0; uvicorn would raise the signal again afterwards."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            ending.end()
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    return Server(config)


if __name__ == "__main__":
    sys.exit(main())
