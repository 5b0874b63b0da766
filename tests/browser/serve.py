"""``python -m webui`` on the slow engine: ``python serve.py --delay S --slots N --loading S [webui's flags]``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from slow_engine import SlowEngine  # noqa: E402

from webui.__main__ import main  # noqa: E402
from webui.settings import Settings  # noqa: E402

if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--delay", type=float, default=0.05)
    flags.add_argument("--slots", type=int, default=4)
    flags.add_argument("--loading", type=float, default=0.0)
    given, rest = flags.parse_known_args()

    def make(_: Settings) -> SlowEngine:
        time.sleep(given.loading)
        return SlowEngine(given.delay, given.slots)

    sys.exit(main(rest, make))
