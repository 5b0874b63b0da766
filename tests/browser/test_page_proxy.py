"""The page behind careless proxies: what is wrong is said on the page and in the log, with the flag."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from driver import Server, Talk, picture, slow_server
from proxy import Proxy, running

Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Start a server with flags, behind a proxy."""

    @contextmanager
    def start(proxy: Proxy, flags: Sequence[str] = ()):  # type: ignore[no-untyped-def]
        server = slow_server(tmp_path / "data", flags=flags).start()
        proxy.to = server.port
        try:
            yield server
        finally:
            server.kill()

    return start


def chat(tabs: Callable[..., Talk], url: str) -> None:
    """A picture, a question, an answer, and the picture is seen."""
    talk = tabs(fresh=True, url=url).open("?chat=new")
    talk.give(picture())
    assert talk.ask("hello") == "Turn 1: hello"
    seen = "document.querySelector('.turn img')?.naturalWidth > 0"
    talk.page.wait_for_function(seen)


def test_a_host_without_its_port_is_told_and_mended(
    serve: Serve, tabs: Callable[..., Talk]
) -> None:
    with running(Proxy(0, "127.0.0.1")) as proxy:
        flag = f"--origins {proxy.url.rstrip('/')}"
        with serve(proxy) as server:
            talk = tabs(fresh=True, url=proxy.url)
            talk.page.goto(proxy.url)
            talk.page.wait_for_selector("#refused.error")
            assert flag in talk.page.inner_text("#refused")
            assert flag in server.log()
            talk.problems.clear()  # the refusals
            talk.page.close()
        with serve(proxy, flag.split()):
            chat(tabs, proxy.url)


@pytest.mark.parametrize("strip", [True, False])
def test_a_named_proxy_below_a_prefix(serve: Serve, tabs: Callable[..., Talk], strip: bool) -> None:
    extra = "X-Forwarded-Host: {here}\nX-Forwarded-For: 203.0.113.5"
    flags = ["--root-path", "/ui", "--proxies", "127.0.0.1"]
    proxy = Proxy(0, "inner.example", extra, "/ui", strip)
    with running(proxy), serve(proxy, flags) as server:
        chat(tabs, proxy.url)
        assert "WARNING" not in server.log()
