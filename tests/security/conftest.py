"""One server for the folder, on an engine that repeats the question."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.driver import Server, slow_server
from tests.security.strangers import Stranger


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's data folder."""
    return tmp_path_factory.mktemp("security") / "data"


@pytest.fixture(scope="session")
def server(data: Path) -> Iterator[Server]:
    """The real server in a process of its own."""
    running = slow_server(data, delay=0.02).start()
    yield running
    running.kill()


@pytest.fixture
def stranger(server: Server) -> Iterator[Callable[[], Stranger]]:
    """Make visitors, each with a cookie of his own."""
    made: list[Stranger] = []

    def make() -> Stranger:
        made.append(Stranger(server.url))
        return made[-1]

    yield make
    for each in made:
        each.http.close()
