"""A public link through a tunnel: Gradio's, an own frp server's, or any program's.

The server always runs on; where no tunnel can be made, one screen says why and what else there is.
"""

from __future__ import annotations

import atexit
import hashlib
import re
import secrets
import shlex
import subprocess
import threading
from pathlib import Path

from instructblip.errors import InstructBlipError
from webui.settings import Settings

_ADDRESS = re.compile(r"https?://[^\s\"'<>]+")
_WAIT = 30.0  # seconds for a tunnel program to print its address


class Tunnel:
    """An open tunnel. ``url`` is the public address."""

    def __init__(self, url: str, process: subprocess.Popen[str] | None = None) -> None:
        self.url = url
        self._process = process

    def close(self) -> None:
        """End the tunnel's program."""
        if self._process is not None:
            _end(self._process)


def open_tunnel(settings: Settings, port: int) -> Tunnel:
    """Make a public link to a port of this machine.

    Raises:
        InstructBlipError: why there is none (code ``share_failed``).
    """
    if settings.tunnel_command:
        return _by_command(settings.tunnel_command, port)
    check_program()
    try:
        from gradio.networking import setup_tunnel

        url = setup_tunnel(
            "127.0.0.1", port, secrets.token_urlsafe(32), settings.share_server or None, None
        )
    except Exception as error:
        raise _failed(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return Tunnel(url)


def check_program() -> None:
    """Check the tunnel program that lies in place; Gradio checks only what it fetched itself.

    Raises:
        InstructBlipError: the file is another one than Gradio's.
    """
    path, wanted = program()
    if not path.exists():
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wanted:
        raise _failed(f"{path} is not Gradio's tunnel program: its sha256 is {found}")


def program() -> tuple[Path, str]:
    """Where Gradio's tunnel program belongs, and its sha256 (empty: none for this platform)."""
    from gradio import tunneling

    return Path(tunneling.BINARY_PATH), tunneling.CHECKSUMS.get(tunneling.BINARY_URL, "")


def advice(reason: str, port: int) -> str:
    """The screen that is shown when no tunnel could be made."""
    path, wanted = program()
    return f"""
No share link: {reason}
The page goes on at its local address. What else there is:

  1. Gradio's tunnel program by hand (this machine must reach Gradio's servers):
       file    {path.name}, executable
       place   {path.parent}
       sha256  {wanted or "none is published for this platform"}
  2. An own frp share server:    --share-server HOST:7000
  3. Any tunnel program:         --tunnel-command 'PROGRAM … {{port}}' (it prints the address)
  4. Through a server with ssh:  ssh -N -R 8080:127.0.0.1:{port} USER@SERVER
     then start with             --origins http://SERVER:8080
"""


def _by_command(command: str, port: int) -> Tunnel:
    words = [word.replace("{port}", str(port)) for word in shlex.split(command)]
    try:
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    except OSError as error:
        raise _failed(f"{words[0]}: {error.strerror}") from error
    atexit.register(_end, process)  # no public link, and no program, is left behind
    found: list[str] = []
    ready = threading.Event()

    def read() -> None:
        # Reading goes on after the address: a full pipe would stop the program.
        for line in process.stdout or ():
            match = _ADDRESS.search(line)
            if match and not found:
                found.append(match.group().rstrip("/.,"))
                ready.set()
        ready.set()

    threading.Thread(target=read, name="tunnel", daemon=True).start()
    ready.wait(_WAIT)
    if not found:
        process.kill()
        raise _failed(f"{words[0]} printed no address")
    return Tunnel(found[0], process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()


def _failed(reason: str) -> InstructBlipError:
    return InstructBlipError(reason, code="share_failed", reason=reason)
