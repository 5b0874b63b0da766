"""The process behind :class:`tests.npu.simulated.Simulated`: a line in, a line out."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback


def main(mode: str) -> None:
    """Answer calls until stdin ends; what is printed meanwhile goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if mode == "compute":
        from tests.npu import compute, operators

        compute.install()
        operators.install()
    for line in sys.stdin:
        name, args, kwargs = json.loads(line)
        module, _, function = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(f"tests.npu.{module}"), function)
            answer = {"result": found(*args, **kwargs)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
    sys.stderr.flush()
    os._exit(0)  # an orderly end of torch takes two seconds and shows nothing


if __name__ == "__main__":
    main(sys.argv[1])
