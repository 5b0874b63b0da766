"""Gradio's stub files, which a server has no use for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_META = "gradio.component_meta"
_WRITE = "create_or_modify_pyi"


@contextmanager
def no_stub_files() -> Iterator[None]:
    """Keep Gradio from writing a ``.pyi`` beside every module that defines a component.

    It does so each time it is imported, for its own components and for ours; that is half of the
    time its import takes, and nothing that a server should write.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    loaded = sys.modules.get(_META)
    write = getattr(loaded, _WRITE, None)
    if loaded is not None and write is not None:
        _silence(loaded)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        write = write or finder.write
        if _META in sys.modules and write is not None:
            setattr(sys.modules[_META], _WRITE, write)


class _Finder:
    """Finds Gradio's module as ever, and silences it once it has run."""

    write: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _META:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_silence(module: ModuleType) -> None:
            run(module)
            self.write = getattr(module, _WRITE, None)
            if self.write is not None:
                _silence(module)

        spec.loader.exec_module = run_and_silence  # type: ignore[method-assign]
        return spec


def _silence(module: ModuleType) -> None:
    setattr(module, _WRITE, lambda *_: None)
