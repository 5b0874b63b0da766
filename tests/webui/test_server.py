"""Who may see what: two browsers, every route, forged cookies, foreign pages, logins."""

import hashlib
import os
from collections.abc import Callable
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from slow_engine import CARD
from starlette.testclient import TestClient

from tests.tiny_picture import picture
from webui import render
from webui.sessions import COOKIE, Signer
from webui.store import Store

Visitor = Callable[[], TestClient]


def owner(client: TestClient) -> str:
    return "a-" + client.cookies[COOKIE].split(".")[1]


def upload(client: TestClient, data: bytes) -> str:
    answer = client.post("/gradio_api/upload", files={"files": ("p.png", data, "image/png")})
    assert answer.status_code == 200
    return str(answer.json()[0])


def test_the_cookie_is_http_only_and_lasts(visitor: Visitor) -> None:
    client = visitor()
    first = client.cookies[COOKIE]
    assert "set-cookie" not in client.get("/").headers
    assert client.cookies[COOKIE] == first
    fresh = TestClient(client.app, base_url="https://127.0.0.1")
    words = fresh.get("/").headers["set-cookie"]
    assert "HttpOnly" in words
    assert "SameSite=Lax" in words
    assert "Secure" in words


def test_a_picture_is_shown_to_its_owner_alone(visitor: Visitor, store: Store) -> None:
    mine, other = visitor(), visitor()
    picture_id = store.add_picture(owner(mine), picture())
    answer = mine.get(f"/pictures/{picture_id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert "private" in answer.headers["cache-control"]
    for address in (f"/pictures/{picture_id}", f"/pictures/%2e%2e/pictures/{picture_id}"):
        assert other.get(address).status_code == 404
    nobody = TestClient(mine.app, base_url="http://127.0.0.1:7860")
    assert nobody.get(f"/pictures/{picture_id}").status_code == 404


def test_a_picture_that_both_have_stays_with_both(visitor: Visitor, store: Store) -> None:
    mine, other = visitor(), visitor()
    same = {store.add_picture(owner(c), picture()) for c in (mine, other)}
    assert len(same) == 1
    assert other.get(f"/pictures/{same.pop()}").status_code == 200


def test_an_upload_is_reached_by_its_owner_alone_by_every_route(
    visitor: Visitor, app: FastAPI
) -> None:
    mine, other = visitor(), visitor()
    path = upload(mine, picture())
    assert os.path.exists(path)
    assert mine.get(f"/gradio_api/file={path}").status_code == 200
    twisted = os.path.join(os.path.dirname(path), "..", *path.split(os.sep)[-2:])
    for shape in (path, quote(path, safe=""), twisted, "/" + path):
        for prefix in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"):
            assert other.get(prefix + shape).status_code in (403, 404), (prefix, shape)


@pytest.mark.parametrize("path", ["/etc/passwd", "webui/server.py", "data/cookie.key"])
def test_files_of_the_machine_are_not_served(visitor: Visitor, path: str) -> None:
    assert visitor().get(f"/gradio_api/file={path}").status_code == 404


def test_a_forged_cookie_is_a_new_visitor(visitor: Visitor, store: Store, app: FastAPI) -> None:
    mine = visitor()
    picture_id = store.add_picture(owner(mine), picture())
    real = mine.cookies[COOKIE]
    other_key = Signer(b"x" * 32)
    for value in (
        real[:-1] + ("0" if real[-1] != "0" else "1"),
        other_key.cookie(other_key.new_visitor()),
        "a1." + owner(mine)[2:],
        "",
        "é" * 5,
    ):
        thief = TestClient(app, base_url="http://127.0.0.1:7860")
        answer = thief.get(
            f"/pictures/{picture_id}", headers={"cookie": f"{COOKIE}={value}".encode()}
        )
        assert answer.status_code == 404


def test_a_foreign_page_may_not_post(visitor: Visitor) -> None:
    client = visitor()
    evil = {"origin": "https://evil.example"}
    assert client.post("/gradio_api/queue/join", json={}, headers=evil).status_code == 403
    files = {"files": ("p.png", picture(), "image/png")}
    assert client.post("/gradio_api/upload", files=files, headers=evil).status_code == 403
    seen = client.get("/config", headers=evil)
    assert "access-control-allow-origin" not in seen.headers


def test_a_name_that_is_not_ours_is_refused(visitor: Visitor, make_app) -> None:
    for name in ("rebound.example", "127.rebound.example", "127.0.0.1.rebound.example"):
        answer = visitor().get("/", headers={"host": name})
        assert answer.status_code == 403
        assert "--origins" in answer.text
    known = TestClient(make_app(origins=("https://chat.example",)), base_url="https://chat.example")
    assert known.get("/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/monitoring", "/gradio_api/proxy=https://huggingface.co", "/gradio_api/deep_link"]
)
def test_routes_that_no_page_needs_are_closed(visitor: Visitor, path: str) -> None:
    assert visitor().get(path).status_code == 404


def test_a_huge_body_is_refused(visitor: Visitor) -> None:
    answer = visitor().post(
        "/gradio_api/upload", content=b"x", headers={"content-length": str(10**9)}
    )
    assert answer.status_code == 413


def test_a_login_covers_everything(make_app, store: Store) -> None:
    client = TestClient(make_app(auth=("ann:secret",)), base_url="http://127.0.0.1:7860")
    for path in (
        "/config",
        "/pictures/abc",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/abcd",
    ):
        assert client.get(path).status_code == 401, path
    page = client.get("/", headers={"accept": "text/html"})
    assert 'name="password"' in page.text
    assert client.post("/login", data={"name": "ann", "password": "no"}).status_code == 401
    assert client.post("/login", data={"name": "eve", "password": "secret"}).status_code == 401
    assert client.get("/config").status_code == 401
    assert client.post("/login", data={"name": "ann", "password": "secret"}).status_code == 200
    assert client.get("/config").status_code == 200
    picture_id = store.add_picture("u-ann", picture())
    assert client.get(f"/pictures/{picture_id}").status_code == 200


def test_browsers_with_a_shared_login_do_not_see_each_other(make_app, store: Store) -> None:
    app = make_app(auth=("guest:secret", "ann:words"))
    owners = []
    for name, password in (("guest", "secret"), ("guest", "secret"), ("ann", "words")) * 2:
        client = TestClient(app, base_url="http://127.0.0.1:7860")
        client.post("/login", data={"name": name, "password": password})
        assert client.get("/config").status_code == 200
        owners.append(app.state.accounts.visitor(client.cookies[COOKIE]).owner)
    assert len(set(owners)) == 5  # four guests, and one person on two devices
    assert owners[-1] == "u-ann"


def test_a_browser_with_a_shared_login_finds_its_chats_again(make_app, store: Store) -> None:
    app = make_app(auth=("guest:secret",))
    signer = Signer((store.folder / "cookie.key").read_bytes())
    account = "guest\0" + "5" * 32
    words = (account.encode().hex(), "1790000000")
    signature = signer.sign("v", *words, hashlib.sha256(b"secret").hexdigest())
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    old = f"v1.{words[0]}.{words[1]}.{signature}"  # written by version 0.1
    client.cookies.set(COOKIE, old, domain="127.0.0.1")
    assert client.get("/config").status_code == 401
    owners = []
    for _ in range(2):
        client.post("/login", data={"name": "guest", "password": "secret"})
        owners.append(app.state.accounts.visitor(client.cookies[COOKIE]).owner)
        client.post("/logout")
        assert client.get("/config").status_code == 401
    assert owners == [f"u-{account}"] * 2


def test_the_way_out_is_on_the_page_of_who_is_logged_in(make_app) -> None:
    app = make_app(auth=("ann:secret",))
    client = TestClient(app, base_url="https://127.0.0.1")
    client.post("/login", data={"name": "ann", "password": "secret"}, follow_redirects=False)
    assert render.header(CARD, "en", "ann").count('action="logout"') == 1
    assert "&lt;b&gt;" in render.header(CARD, "zh", "<b>")
    assert "logout" not in render.header(CARD, "en")
    for cookie in client.cookies.jar:
        assert cookie.secure
        assert cookie.has_nonstandard_attr("HttpOnly")


def test_health_tells_no_secrets(visitor: Visitor) -> None:
    body = visitor().get("/healthz").json()
    assert body["ok"]
    assert set(body) <= {"ok", "model", "waiting", "running"}
