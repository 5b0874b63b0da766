"""How many files and connections this process may have open, and what follows for visitors."""

from __future__ import annotations

from webui.asgi.lines import Limits
from webui.settings import Settings

_WINDOWS = 8192  # there is no such limit


def limits_of(settings: Settings) -> Limits:
    """What the server of these settings lets in."""
    body = (settings.max_upload + 1) * 2**20
    return Limits.of(raise_descriptors(), settings.max_connections, settings.patience, body)


def raise_descriptors() -> int:
    """Raise the soft limit of open descriptors to the hard one; how many there are now."""
    try:
        import resource
    except ImportError:
        return _WINDOWS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, 10_240):  # macOS calls its limit endless and takes no more than this
        if soft == hard:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
        except (ValueError, OSError):
            continue
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if soft == resource.RLIM_INFINITY else soft
