"""``python -m webui`` on the slow engine: ``python serve.py --delay S --slots N [webui's flags]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from slow_engine import SlowEngine  # noqa: E402

from webui.__main__ import main  # noqa: E402

if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--delay", type=float, default=0.05)
    flags.add_argument("--slots", type=int, default=4)
    given, rest = flags.parse_known_args()
    sys.exit(main(rest, lambda _: SlowEngine(given.delay, given.slots)))
