"""The table of open routes against every route of the installed Gradio."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.routing import Mount

from webui.asgi.routes import OPEN, find

# What Gradio brings and no visit needs: closed, each looked at. A new Gradio's new route fails here.
CLOSED = Path(__file__).with_name("closed_routes.txt").read_text("utf-8").split()


def routes(app: Any, prefix: str = "") -> set[tuple[str, str]]:
    """(method, path) of all routes below an app."""
    found: set[tuple[str, str]] = set()
    for route in app.routes:
        path = prefix + getattr(route, "path", "")
        if isinstance(route, Mount):
            found |= routes(route.app, path)
        elif not hasattr(route, "path"):  # a router that FastAPI keeps whole
            found |= {(m, r.path) for r in route.effective_route_contexts() for m in r.methods}
        else:
            methods = getattr(route, "methods", None) or {"WEBSOCKET"}
            found |= {(method, path) for method in methods}
    return found


def is_open(method: str, path: str) -> bool:
    """Whether a template of theirs is a row of our table, whatever the variable part is called."""
    plain = re.sub(r"\{\w+:path\}", "*", path)
    plain = re.sub(r"\{\w+\}", "{}", plain).replace("/run/{}", "/run/predict")
    rows = (route for route in OPEN if method in route.methods)
    return any(re.sub(r"\{\w+\}", "{}", route.path) == plain for route in rows)


def test_every_route_is_open_or_closed_on_purpose(app: Any) -> None:
    unknown = {
        f"{method} {path}"
        for method, path in routes(app)
        if not is_open(method, path) and path not in CLOSED
    }
    assert ("POST", "/gradio_api/process_recording") in routes(app)  # they were really read
    assert not unknown, "open them in webui/asgi/routes.py or close them in closed_routes.txt"


def test_what_is_closed_does_not_exist() -> None:
    for path in CLOSED:
        filled = path.replace("{", "").replace("}", "").replace(":path", "")
        for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert find({"type": "http", "method": method, "path": filled}) is None, (method, path)


def test_the_table_names_no_route_twice() -> None:
    pairs = [(method, route.path) for route in OPEN for method in route.methods]
    assert len(pairs) == len(set(pairs))
