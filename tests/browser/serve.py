"""The real server on an engine that is slow on purpose; flags of its own, then the server's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from slow_engine import SlowEngine  # noqa: E402

from webui.__main__ import main  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--slots", type=int, default=4)
    own, others = parser.parse_known_args()
    others += ["--per-owner", "99", "--grace", "20"]
    sys.exit(main(others, lambda settings: SlowEngine(own.delay, own.slots)))
