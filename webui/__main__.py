"""``python -m webui``: settings → engine → store → app → server."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError
from instructblip.quick import no_collection
from webui.accounts import Accounts
from webui.asgi.front import named_proxies
from webui.ending import Ending
from webui.runs import Runs
from webui.sessions import Admission, Signer, load_key
from webui.settings import PREFIX, Settings, parser, read_settings, with_login
from webui.starting import Starting
from webui.storage.database import check_file
from webui.storage.modes import make_private
from webui.store import Store
from webui.stubs import no_stub_files
from webui.uploads import private_folder, remove_folder

log = logging.getLogger("webui")
_TRIED_PORTS = 100
SWITCH = 0.001  # seconds that another thread may keep the event loop waiting; Python's own is 5 ms
RUNNING = 16  # answers that an engine writes at once


def main(
    argv: Sequence[str] | None = None, make_engine: Callable[[Settings], Engine] | None = None
) -> int:
    """Serve until SIGTERM or Ctrl-C; an error of ours is one sentence, exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        settings = _with_share_login(read_settings(argv))
        _warn_of_ps(argv)
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

    from webui.asgi.descriptors import limits_of
    from webui.asgi.lines import Lines
    from webui.asgi.listening import connection_of
    from webui.asgi.repeats import repeats_held_back

    # What is wrong with the folder and the logins is said before anything slow.
    store = Store(Path(settings.data), settings.max_upload * 2**20, settings.limits)
    key = load_key(Path(settings.data), store.visitors_by_cookie)
    accounts = Accounts(settings, Signer(key))
    settings = dataclasses.replace(settings, auth=())  # the passwords are hashed; they are not kept
    os.environ.pop(PREFIX + "AUTH", None)  # programs that are started from here need none
    recovered = store.recover()
    if recovered:
        say(f"{recovered} answer(s) of the last run were cut off; their text was kept.")

    uploads = private_folder()  # before Gradio is imported

    def load() -> Engine:
        with no_collection(), no_stub_files():
            import_module("webui.server")
        return make_engine(settings)

    def make(engine: Engine) -> Any:
        from webui.app import build_page
        from webui.server import create_app

        admission = Admission(settings.per_owner, settings.max_waiting + RUNNING)
        runs = Runs(engine, store, settings.grace, admission)
        return create_app(settings, engine, store, runs, build_page, accounts)

    starting = Starting(
        load,
        make,
        ready=lambda engine, app: _ready(settings, engine, listening, app),
        stop=lambda: setattr(server, "should_exit", True),
        root=settings.root_path,
    )
    ending = Ending(starting)
    lines = Lines(limits_of(settings), named_proxies(settings))
    config = uvicorn.Config(
        ending,
        log_level="warning",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=math.ceil(lines.limits.idle),
        proxy_headers=False,  # webui.asgi.front reads them, of proxies that were named
        http=connection_of(lines),
        loop="asyncio",
        ws="websockets-sansio",
        ws_max_size=65_536,  # pages send nothing but the end
        ws_ping_interval=20.0,
        ws_ping_timeout=40.0,  # a browser answers by itself, whatever its tab does
        lifespan="on",
    )
    sys.setswitchinterval(SWITCH)
    server = _server(config, ending, lines)
    try:
        with repeats_held_back():
            server.run(sockets=[listening])
    finally:
        store.close()
        accounts.close()
        remove_folder(uploads)
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
    if not settings.share or settings.asks_login:
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
        # Connections inherit it; else an answer in two writes waits 40 ms for the reader's word.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
    if settings.loopback or settings.asks_login:
        return
    say(
        "*"
        * 78
        + f"\nWARNING: listening on {settings.host} without a login. Everybody who reaches this "
        "machine\ncan chat here and use its device. Ask for a login with --auth USER:PASS, or "
        "listen on\n127.0.0.1 and use a tunnel.\n" + "*" * 78
    )


def _warn_of_ps(argv: Sequence[str] | None) -> None:
    if sys.platform != "win32" and parser().parse_args(argv).auth:
        say(
            "WARNING: everybody on this machine can read what follows --auth (ps). Keep logins in "
            "a file of hashes\n(bash launch.sh passwd FILE NAME, then --auth-file FILE), or in the "
            "variable INSTRUCTBLIP_AUTH."
        )


def say(words: str) -> None:
    """A line for the person at the terminal."""
    print(words, flush=True)


def _server(config: Any, ending: Ending, lines: Any) -> Any:
    from webui.asgi.listening import BoundedServer

    class Server(BoundedServer):
        """Ends as asked, with exit code 0; uvicorn would raise the signal again afterwards."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            ending.end()
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Not Ctrl-C where this process began with it ignored, as ``nohup … &`` has it."""
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with super().capture_signals():
                if ignored:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                yield

    return Server(config, lines)


if __name__ == "__main__":
    sys.exit(main())
