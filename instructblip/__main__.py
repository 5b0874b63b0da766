"""``python -m instructblip``."""

import signal
import sys


class Stopped(KeyboardInterrupt):
    """Ctrl-C. Python ends by the signal, whatever the exit code, where a bare KeyboardInterrupt
    passed through ``exec``, as it may while packages are imported."""


def stop(*_: object) -> None:
    """The handler of SIGINT."""
    raise Stopped


try:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    from instructblip.cli import main

    code = main()
except KeyboardInterrupt:  # pressed while Python was still importing
    print("error: stopped by Ctrl-C.", file=sys.stderr)
    code = 1
sys.exit(code)
