"""``python -m webui`` on the embedded model, whose engine fails as a question says: ``die``, ``hang``.

``python faulty.py PATIENCE [webui's flags]``. A hang lasts until there is a file ``go`` beside the
data folder.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from instructblip.engine.base import Request  # noqa: E402
from webui.__main__ import load_engine, main  # noqa: E402
from webui.settings import Settings  # noqa: E402


def make(patience: float, settings: Settings) -> Any:
    from instructblip.engine import local

    kind = local.LocalEngine
    local.LocalEngine = partial(kind, patience=patience)  # type: ignore[misc, assignment]
    engine: Any = load_engine(settings)
    submit, run, go = engine.submit, engine._model.run, Path(settings.data).parent / "go"

    def die() -> bool:
        raise SystemExit(f"the thread dies in {__file__}")

    def hang(*given: Any) -> Any:
        while not go.exists():
            time.sleep(0.02)
        return run(*given)

    def faulty(request: Request) -> Any:
        if request.question == "die":
            engine._wait_for_work = die
        if request.question == "hang":
            engine._model.run = hang
        return submit(request)

    engine.submit = faulty
    return engine


if __name__ == "__main__":
    flags = ["--model", "embedded", "--device", "cpu"]
    sys.exit(main([*flags, *sys.argv[2:]], partial(make, float(sys.argv[1]))))
