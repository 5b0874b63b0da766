"""A process of :mod:`webui.picture_reader` as the server sees it: one picture, then gone.

Starting one takes some 0.07 s of CPU time, so each picture gets a fresh one, made ahead: nothing of
a picture, be it memory or an intruder, is there when the next stranger's comes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import psutil  # type: ignore[import-untyped]

from instructblip.errors import PictureError
from instructblip.images import FORMATS, MAX_SIDE, NO_END, Prepared, too_large
from webui.picture_reader import BEGAN, Limits, read_frame, write_frame

_ROOT = Path(__file__).parent.parent
# A process that a stranger may take over is told nothing else: a login may stand in the environment.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")
_MOST_HEADER = 2**16  # bytes
_MOST_PICTURE = 2**25
LOW = 15  # nice value of one that has taken long already
_SAYS = ("picture_empty", "picture_too_large", "picture_heic", "picture_unreadable",
         "picture_bomb", "picture_long", "picture_truncated")  # fmt: skip


class NotBegun(Exception):
    """The process ended before it had the picture, which is not the picture's fault."""


class PictureProcess:
    """Started at once. :meth:`read` once, from one thread; the rest from any."""

    def __init__(self, limits: Limits) -> None:
        """Raises OSError where no process can be made."""
        self.limits = limits
        self._killed: PictureError | None = None
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        paths = [str(_ROOT), *(os.path.abspath(path) for path in sys.path)]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        environment["PYTHONSAFEPATH"] = "1"  # nothing from wherever the server was started
        environment["MALLOC_ARENA_MAX"] = "1"  # address space is counted, used or not
        self._process = subprocess.Popen(
            [sys.executable, "-m", "webui.picture_reader", *limits.arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is the server's
        )
        self._into = cast(BinaryIO, self._process.stdin)
        self._out = cast(BinaryIO, self._process.stdout)
        self._watched: psutil.Process | None = None
        with suppress(psutil.Error):
            self._watched = psutil.Process(self._process.pid)

    def read(self, data: bytes) -> Prepared:
        """Have the picture read; takes as long as that takes.

        Raises:
            PictureError: as :func:`instructblip.images.prepare`, and ``picture_too_slow``,
                ``picture_too_hungry``, ``picture_crashed``; or what it was killed with.
            NotBegun: the process had ended before.
        """
        if len(data) > self.limits.file:
            raise too_large(len(data), self.limits.file)
        try:
            write_frame(self._into, data)
            read_frame(self._out, len(BEGAN))
        except (OSError, EOFError, ValueError) as error:
            raise self._killed or NotBegun() from error
        try:
            header = json.loads(read_frame(self._out, _MOST_HEADER))
            picture = read_frame(self._out, _MOST_PICTURE)
            return self._understood(header, picture)
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
            raise self._killed or self._ended() from None

    def lower(self) -> None:
        """Let everything else on the machine go first; where that cannot be said, nothing changes."""
        if hasattr(os, "setpriority"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, LOW)

    def kill(self, why: PictureError | None = None) -> None:
        """End the process; what is being read fails with ``why``."""
        self._killed = self._killed or why
        self._process.kill()

    def close(self) -> None:
        """End the process and leave nothing of it."""
        self._process.kill()
        for pipe in (self._into, self._out):
            with suppress(OSError):
                pipe.close()
        self._process.wait()

    def seconds(self) -> float:
        """CPU time used so far; 0 where it is not known any more."""
        with suppress(psutil.Error):
            if self._watched is not None:
                times = self._watched.cpu_times()
                return float(times.user + times.system)
        return 0.0

    def memory(self) -> int:
        """Bytes in use; 0 where that is not known any more."""
        with suppress(psutil.Error):
            if self._watched is not None:
                return int(self._watched.memory_info().rss)
        return 0

    def too_slow(self, seconds: float | None = None) -> PictureError:
        """The error of a picture that takes too long."""
        limit = f"{seconds or self.limits.cpu:g}"
        return PictureError(
            f"Reading this picture takes more than {limit} s. Save it anew, smaller or in another "
            "format.",
            code="picture_too_slow",
            seconds=limit,
        )

    def too_hungry(self) -> PictureError:
        """The error of a picture that takes too much memory."""
        limit = f"{self.limits.memory / 1e9:g}"
        return PictureError(
            f"Reading this picture takes more than {limit} GB of memory. Save it anew, smaller or "
            "in another format.",
            code="picture_too_hungry",
            limit=limit,
        )

    def _understood(self, header: Any, picture: bytes) -> Prepared:
        """What the process says, as far as it may say that; KeyError and the like otherwise."""
        if not isinstance(header, dict):
            raise ValueError("no header")
        code = header.get("code")
        if code == "picture_too_hungry":
            raise self.too_hungry()
        if code == "picture_crashed":
            raise _crashed(str(header["how"])[:100])
        if code in _SAYS:
            values = {str(k)[:20]: str(v)[:200] for k, v in header["values"].items()}
            raise PictureError(str(header["message"])[:1000], code=code, **values)
        width, height = int(header["width"]), int(header["height"])
        mime, kind = header["mime"], header["format"]
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and picture):
            raise ValueError("no such picture was asked for")
        if mime not in ("image/png", "image/jpeg") or kind not in (*FORMATS, "MPO"):
            raise ValueError("no such format was asked for")
        notes = (NO_END,) if NO_END in header["notes"] else ()
        return Prepared(picture, width, height, mime, kind, notes)

    def _ended(self) -> PictureError:
        """Why a process that nobody here killed has ended."""
        self._process.kill()  # one that only answered nonsense
        code = self._process.wait()
        if hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU:
            return self.too_slow()
        with suppress(ValueError):
            return _crashed(signal.Signals(-code).name)
        return _crashed(f"code {code}")


def _crashed(how: str) -> PictureError:
    return PictureError(
        f"The picture made its reader fail, or that was ended from outside ({how}). Send it again, "
        "or save it anew with another program.",
        code="picture_crashed",
        how=how,
    )
