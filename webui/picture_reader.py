"""The process that reads one stranger's picture: bytes in, a small upright picture out.

Run as ``python -m webui.picture_reader`` by :mod:`webui.picture_process`, with :class:`Limits` as
arguments. It imports neither torch nor Gradio, opens nothing, and ends with its picture or when its
input closes. A frame is its length in eight bytes, then its bytes; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

# Pillow's plugins for what most pictures are; without them it would import every one that it has.
# What reads AVIF and HEIC is large, and imported for such a picture only.
from PIL import (  # noqa: F401  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from instructblip.errors import PictureError
from instructblip.images import prepare

BEGAN = b"began"  # the frame that says: the bytes are here, what happens now is the picture's doing
NICE = 5  # behind the answers, and yet a photo is read while a model computes on all cores
_SPARE = 1  # seconds from the signal that ends a process to the one that nothing can hold off


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one picture may take: seconds of CPU, bytes of memory, bytes of file."""

    cpu: float = 10.0
    memory: int = 1_500_000_000
    file: int = 32 * 2**20

    def arguments(self) -> list[str]:
        """As the command line of this module takes them."""
        return [str(self.cpu), str(self.memory), str(self.file)]


def read_frame(pipe: BinaryIO, at_most: int) -> bytes:
    """The next frame.

    Raises:
        EOFError: the pipe was closed before its end.
        ValueError: it is longer than ``at_most``.
    """
    length = int.from_bytes(_exactly(pipe, 8), "big")
    if length > at_most:
        raise ValueError(f"a frame of {length} bytes, at most {at_most} are taken")
    return _exactly(pipe, length)


def write_frame(pipe: BinaryIO, data: bytes) -> None:
    """Send a frame."""
    pipe.write(len(data).to_bytes(8, "big"))
    pipe.write(data)
    pipe.flush()


def main(arguments: list[str]) -> int:
    """Read one picture from standard input, write it to standard output."""
    limits = Limits(float(arguments[0]), int(arguments[1]), int(arguments[2]))
    into, out = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's
    _limit_memory(limits)
    try:
        data = read_frame(into, limits.file)
    except EOFError:  # never needed
        return 0
    _silence()
    write_frame(out, BEGAN)
    _limit_time(limits)
    threading.Thread(target=_end_with, args=(into,), daemon=True).start()
    header, picture = _read(data, limits)
    write_frame(out, json.dumps(header).encode())
    write_frame(out, picture)
    return 0


def _read(data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    """The header of an answer and the picture's bytes, empty where the header tells of an error."""
    try:
        kept = prepare(data, max_bytes=limits.file)
    except PictureError as error:
        return {"code": error.code, "message": str(error), "values": error.values}, b""
    except MemoryError:
        return {"code": "picture_too_hungry"}, b""
    except Exception as error:  # of a library; whatever it was, it is this picture's alone
        return {"code": "picture_crashed", "how": type(error).__name__}, b""
    size = {"width": kept.width, "height": kept.height}
    told = {"mime": kept.mime, "format": kept.format, "notes": kept.notes}
    return {**size, **told}, kept.data


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError("the pipe was closed")
    return data


def _limit_memory(limits: Limits) -> None:
    """Before a byte of the picture is here. Elsewhere than on Linux the server watches."""
    with suppress(AttributeError, OSError):
        os.nice(NICE)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time(limits: Limits) -> None:
    if sys.platform == "linux":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = math.ceil(used.ru_utime + used.ru_stime + limits.cpu)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + _SPARE))


def _silence() -> None:
    """Libraries' complaints about a picture do not fill the server's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _end_with(pipe: BinaryIO) -> None:
    """Nobody waits for the picture any more once the server closes the pipe, or is gone."""
    pipe.read(1)
    os._exit(0)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
