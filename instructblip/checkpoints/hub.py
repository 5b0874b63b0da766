"""A hub name (``Salesforce/instructblip-vicuna-7b``) → the folder in the local hub cache.

Offline is the normal case: what lies in the cache is used without a call. Only a name that is not
there is fetched, because it was named.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from instructblip.checkpoints.files import shard_files
from instructblip.errors import CheckpointError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SMALL = ["*.json", "*.model", "*.txt"]


def is_hub_name(model: str) -> bool:
    """Whether this reads as ``owner/name`` and is no path on this machine."""
    return bool(_NAME.fullmatch(model)) and not Path(model.partition("/")[0]).exists()


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
        shard_files(folder)
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
