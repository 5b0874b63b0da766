"""``python -m webui`` on a simulated NPU that computes: ``python -m tests.npu.serve [webui's flags]``."""

from __future__ import annotations

import sys

from tests.npu import compute, operators
from webui.__main__ import main

if __name__ == "__main__":
    compute.install()
    operators.install()
    sys.exit(main())
