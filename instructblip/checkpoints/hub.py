"""A hub name (``Salesforce/instructblip-vicuna-7b``) → the folder in the local hub cache.

Offline is the normal case: what lies in the cache is used without a call. Only a name that is not
there is fetched, because it was named.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from instructblip.checkpoints.kinds import single_file
from instructblip.checkpoints.weights import weight_files
from instructblip.errors import CheckpointError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SMALL = ["*.json", "*.model", "*.txt"]


def is_hub_name(model: str) -> bool:
    """Whether this reads as ``owner/name`` and is no path on this machine."""
    return bool(_NAME.fullmatch(model)) and not Path(model.partition("/")[0]).exists()


def snapshot_of(path: Path) -> Path:
    """The snapshot that a hub cache's folder of one model stands for; any other path as it is.

    The folder is ``models--owner--name``, with ``snapshots``, ``refs`` and ``blobs`` in it, or one of
    these three. ``refs/main`` says which snapshot; without it, the only one is meant.

    Raises:
        CheckpointError: the snapshot is not there, or several are and none is said.
    """
    top = path.parent if path.name in ("snapshots", "refs", "blobs") else path
    snapshots = top / "snapshots"
    if not snapshots.is_dir() or (not (top / "refs").is_dir() and not (top / "blobs").is_dir()):
        return path
    main = top / "refs" / "main"
    try:
        named = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
        found = sorted(folder for folder in snapshots.iterdir() if folder.is_dir())
    except (OSError, ValueError) as error:
        raise _no_snapshot(top, f"it cannot be read ({error})") from error
    for folder in found:
        if folder.name == named:
            return folder
    if named:
        raise _no_snapshot(top, f"refs/main names {named!r:.80}, which is not in snapshots")
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            f"{top} is a hub cache's folder of one model, with {len(found)} snapshots and no "
            f"refs/main: {', '.join(map(str, found[:3]))}. Give one of them.",
            code="checkpoint_ambiguous",
            name=str(top),
        )
    raise _no_snapshot(top, "snapshots is empty")


def _no_snapshot(top: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{top} is a hub cache's folder of one model, without that model: {why}. Fetch it again.",
        code="checkpoint_absent",
        name=str(top),
    )


def local_folder(name: str | Path, flag: str = "") -> Path:
    """A folder by its path, or by its hub name from the local cache; nothing is fetched.

    Args:
        name: a folder, a hub cache's folder of one model, or ``owner/name``.
        flag: the flag that named it, for the message.

    Raises:
        CheckpointError: neither is there, or it is a file.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return snapshot_of(folder)
    said = f"{flag} {folder}".strip()
    if folder.is_file():
        what = single_file(folder)
        raise CheckpointError(f"{said} {what}", code="checkpoint_kind", name=str(name))
    if _NAME.fullmatch(str(name)):
        try:
            return _snapshot(str(name), local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{said} is no folder, and no model of that name is in the local hub cache. Check "
                f"the path, or fetch it first: hf download {name}",
                code="checkpoint_absent",
                name=str(name),
            ) from error
    raise CheckpointError(
        f"{said} is no folder. Check the path.", code="checkpoint_absent", name=str(name)
    )


def hub_folder(name: str) -> Path:
    """The folder of a hub model: from the cache where it is whole, else fetched.

    Raises:
        CheckpointError: not in the cache, and offline, refused or unknown to the hub.
    """
    cached = _cached(name)
    if cached is not None:
        return cached
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _absent(name, "HF_HUB_OFFLINE is set, so it is not fetched", "Unset it for once")
    print(f"{name} is not in the hub cache; fetching it …", file=sys.stderr)
    folder = _fetch(name, [*_SMALL, "*.safetensors"])
    if not any(folder.glob("*.safetensors")):
        folder = _fetch(name, [*_SMALL, "*.bin"])
    return folder


def _cached(name: str) -> Path | None:
    try:
        folder = _snapshot(name, local_files_only=True)
    except (OSError, ValueError):
        return None
    try:
        weight_files(folder)
    except CheckpointError:
        return None
    return folder


def _fetch(name: str, patterns: list[str]) -> Path:
    try:
        return _snapshot(name, allow_patterns=patterns)
    except Exception as error:  # the hub's client raises a dozen kinds, its transport more
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        then = "Check the network"
        if "certificate" in f"{reason} {error!r} {error.__cause__!r}".lower():
            then = "Name your network's CA bundle with SSL_CERT_FILE=CA.pem"
        raise _absent(name, f"could not be fetched ({reason})", then) from error


def _snapshot(name: str, **how: Any) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, **how))


def _absent(name: str, why: str, then: str) -> CheckpointError:
    return CheckpointError(
        f"{name} is not on this machine and {why}. {then}, point HF_ENDPOINT to a mirror, or give "
        "a local folder (one from ModelScope will do).",
        code="checkpoint_absent",
        name=name,
    )
