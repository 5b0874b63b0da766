"""Strict mode for the whole suite, pytester for its own test, and signals as on a terminal.

How long a test may take, and the suite beside busy loops: see README.md here.
"""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.strict", "tests.halves", "pytester"]

# The first example of a property pays for imports, and another load slows all: no time per example.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def _ignore_without_handing_down(number: int) -> None:
    """A process in the background may have been told to ignore Ctrl-C (``nohup … &`` in a script),
    and whatever it starts would inherit that; it does not inherit a handler."""
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
    _ignore_without_handing_down(_number)
