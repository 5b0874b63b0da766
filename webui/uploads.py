"""Uploaded files between their arrival and the picture they become: whose, how many, how long.

Each upload lies in a folder of its own below one folder of this server. A used one goes with the
chat it was used in, at the latest after ten minutes; an unused one within the hour.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from instructblip.errors import Busy, UnknownTurn
from webui.bounds import Bound, Client, Hold

PREFIX = "instructblip-"
USED, UNUSED = 600.0, 3600.0  # seconds that an upload is kept
EVICTABLE = 60.0  # seconds after which a newcomer's unused upload makes room for another's
SMALLEST = 2**18  # bytes that a file counts at least, so that the bound also bounds their number
PER_OWNER, PER_ADDRESS, TOTAL = 2**28, 2**30, 2**31  # bytes
_LOCK = "server.lock"
_NAME = 120  # characters of a file's name that are kept


@dataclass
class Upload:
    """One file; ``picture_id`` is set once it was used; ``at`` is monotonic seconds."""

    path: str
    client: Client
    hold: Hold
    at: float = field(default_factory=time.monotonic)
    picture_id: str = ""


class Uploads:
    """Path → upload. Safe from any thread.

    Args:
        folder: where files are put; the process's own.
        owner, address, total: bytes that may lie there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        owner: int = PER_OWNER,
        address: int = PER_ADDRESS,
        total: int = TOTAL,
    ) -> None:
        self.folder = folder
        self._bound = Bound("uploads", owner=owner, address=address, total=total)
        self._files: dict[str, Upload] = {}  # oldest first
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._files)

    def new_path(self, name: str) -> Path:
        """A path for a file to come, in a new folder of its own."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder / safe_name(name)

    def reserve(self, client: Client, size: int) -> Hold:
        """Hold room for ``size`` bytes; older files make room where they may.

        Raises:
            Busy: there is none (``busy_uploads``, ``busy_uploads_all``).
        """
        amount = max(size, SMALLEST)
        with self._lock:
            while True:
                try:
                    return self._bound.enter(client, amount)
                except Busy as error:
                    old = self._evictable(client, own=error.code == "busy_uploads")
                    if old is None:
                        raise
                    self._drop(old)

    def take(self, client: Client, path: Path, size: int) -> str:
        """Note a file that has come as this client's. Returns its path as it is named from now on.

        Raises:
            Busy: there is no room for it.
        """
        hold = self.reserve(client, size)
        with self._lock:
            self._files[str(path)] = Upload(str(path), client, hold)
        return str(path)

    def give_back(self, paths: list[str]) -> None:
        """These were taken, and the rest of their form was not."""
        self._drop_where(lambda upload: upload.path in paths)

    def owns(self, owner: str, path: str) -> bool:
        """Whether this is, to the letter, the path of an upload of this owner."""
        with self._lock:
            upload = self._files.get(path)
            return upload is not None and upload.client.owner == owner

    def read(self, owner: str, path: str) -> bytes:
        """The bytes of an owner's upload.

        Raises:
            UnknownTurn: somebody else's file, or none (``upload_foreign``, ``upload_gone``).
        """
        if not self.owns(owner, path):
            raise UnknownTurn(
                "This file was not uploaded by you, or is no longer there. Choose the picture "
                "again.",
                code="upload_foreign",
            )
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UnknownTurn(
                "The uploaded file is no longer there. Choose the picture again.",
                code="upload_gone",
            ) from error

    def used(self, path: str, picture_id: str) -> None:
        """The upload has become this picture."""
        with self._lock:
            if upload := self._files.get(path):
                upload.picture_id = picture_id

    def released(self, owner: str, picture_id: str) -> None:
        """The owner's picture is gone; so are the uploads that it was made of."""
        self._drop_where(lambda u: u.client.owner == owner and u.picture_id == picture_id)

    def sweep(self) -> int:
        """Remove what has been here for too long. Returns how many files."""
        now = time.monotonic()
        return self._drop_where(lambda u: now - u.at >= (USED if u.picture_id else UNUSED))

    # --- inside --------------------------------------------------------------------------------

    def _evictable(self, client: Client, own: bool) -> Upload | None:
        """The oldest file that may make room: own used ones; at a full server, newcomers' too."""
        now = time.monotonic()
        for upload in self._files.values():
            mine = upload.client.owner == client.owner
            if mine and upload.picture_id:
                return upload
            stranger = not upload.client.known and now - upload.at >= EVICTABLE
            if not own and (stranger or upload.picture_id):
                return upload
        return None

    def _drop_where(self, which: Callable[[Upload], bool]) -> int:
        with self._lock:
            gone = [upload for upload in self._files.values() if which(upload)]
            for upload in gone:
                self._drop(upload)
        return len(gone)

    def _drop(self, upload: Upload) -> None:
        self._files.pop(upload.path, None)
        upload.hold.leave()
        shutil.rmtree(Path(upload.path).parent, ignore_errors=True)


def safe_name(name: str) -> str:
    """A file's name without folders, and without what an address would read otherwise."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(
        c if c.isprintable() and c not in '%?#&+;<>"`|^{}[]\ufffd' else "_" for c in last
    )
    kept = kept.encode("utf-8", "replace").decode("utf-8").strip(" .")
    stem, dot, ending = kept.rpartition(".")
    if len(kept.encode()) > _NAME:
        stem = stem.encode()[: _NAME - len(ending.encode()[:20]) - 1].decode("utf-8", "ignore")
        kept = f"{stem}{dot}{ending.encode()[:20].decode('utf-8', 'ignore')}"
    return kept or "picture"


# --- the folder of this process -----------------------------------------------------------------

_locks: dict[str, IO[bytes]] = {}


def private_folder() -> str:
    """Have Gradio put files into a folder of this process alone; made by the first call.

    Gradio's own choice is one that all users of the machine share. A folder whose process is dead
    is removed on the way: it is told by its lock, which ends with the process however that ends.
    """
    there = os.environ.get("GRADIO_TEMP_DIR", "")
    if there in _locks and os.path.isdir(there):
        return there
    above = Path(there or tempfile.gettempdir())
    above.mkdir(parents=True, exist_ok=True)
    _remove_dead(above)
    made = tempfile.mkdtemp(prefix=PREFIX, dir=above)
    new = Path(made) / f".{_LOCK}"
    lock = new.open("wb")  # held for the process's life
    _try_lock(lock)
    new.rename(new.with_name(_LOCK))  # nobody sees it unlocked
    _locks[made] = lock
    os.environ["GRADIO_TEMP_DIR"] = made
    return made


def remove_folder(folder: str) -> None:
    """Remove this process's folder at an orderly end."""
    lock = _locks.pop(folder, None)
    if lock is not None:
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("GRADIO_TEMP_DIR", None)


def _remove_dead(above: Path) -> None:
    for lock in above.glob(f"{PREFIX}*/{_LOCK}"):
        try:
            with lock.open("r+b") as file:
                dead = _try_lock(file)
        except OSError:  # somebody else's
            continue
        if dead:
            shutil.rmtree(lock.parent, ignore_errors=True)


def _try_lock(file: IO[bytes]) -> bool:
    """Lock a file for as long as it is open; False where another process has it."""
    try:
        import fcntl
    except ImportError:  # no such locks here: no folder is taken for dead
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
