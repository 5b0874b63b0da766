"""A server in this process on an engine without a model."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))

from slow_engine import SlowEngine

from webui.app import build_page
from webui.runs import Runs
from webui.server import create_app
from webui.settings import Settings
from webui.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine(0.01, 2)


@pytest.fixture
def make_app(tmp_path: Path, store: Store, engine: SlowEngine) -> Callable[..., FastAPI]:
    def make(**values: object) -> FastAPI:
        settings = Settings(data=str(tmp_path / "data"), **values)
        return create_app(settings, engine, store, Runs(engine, store), build_page)

    return make


@pytest.fixture
def app(make_app: Callable[..., FastAPI]) -> FastAPI:
    return make_app()


@pytest.fixture
def visitor(app: FastAPI) -> Callable[[], TestClient]:
    """Make browsers, each with cookies of its own."""

    def make() -> TestClient:
        client = TestClient(app, base_url="http://127.0.0.1:7860")
        assert client.get("/").status_code == 200
        return client

    return make
