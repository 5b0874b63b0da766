"""The FastAPI parent: owner cookie, pictures, login, health, and Gradio mounted in it."""

from __future__ import annotations

import asyncio
import hmac
import html
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError
from webui.asgi.descriptors import limits_of
from webui.asgi.front import Front
from webui.asgi.guard import Guard, set_cookie
from webui.asgi.held import HeldStreams
from webui.asgi.place import Place
from webui.asgi.streams import StreamsOverWebSocket
from webui.decoding import Decoder
from webui.health import HealthReport
from webui.i18n import LANGUAGES, text
from webui.picture_reader import Limits
from webui.runs import Runs
from webui.sessions import COOKIE, Signer, load_key, owner_of
from webui.settings import Settings
from webui.store import Store
from webui.tabs import GradioTables, Tabs
from webui.theme import EarlyScript, page_look
from webui.upload_routes import add_file_routes
from webui.uploads import Uploads, private_folder

log = logging.getLogger(__name__)

BuildPage = Callable[..., gr.Blocks]
_WRONG_LOGIN_PAUSE = 0.5  # seconds; slows guessing
_SWEEP = 30.0  # seconds between two looks at the uploads


def create_app(
    settings: Settings, engine: Engine, store: Store, runs: Runs, build_page: BuildPage
) -> FastAPI:
    """The whole server as one ASGI app; ``app.state.origins`` takes further addresses."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    uploads = Uploads(Path(private_folder()))
    signer = Signer(load_key(Path(settings.data)))
    decoder = Decoder(Limits(file=settings.max_upload * 2**20))
    store.on_released = uploads.released

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        decoder.open()
        watching = [asyncio.create_task(tabs.watch()), asyncio.create_task(_sweep(uploads))]
        yield
        for task in watching:
            task.cancel()
        await asyncio.to_thread(decoder.close)
        await runs.close()
        await asyncio.to_thread(engine.close, 1.0)

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.origins = {origin.lower() for origin in settings.origins}
    _routes(app, engine, store)
    _login_routes(app, settings, signer)
    add_file_routes(app, uploads, settings.max_upload * 2**20)
    page = build_page(engine, store, runs, owner_of=owner_of, uploads=uploads, decoder=decoder)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        show_error=False,
        max_file_size=settings.max_upload * 2**20,
        enable_monitoring=False,
        root_path=settings.root_path or None,
        **page_look(),
    )
    tabs = Tabs(GradioTables(page.state_holder, page._queue))
    place = Place(settings, app.state.origins)
    # The last one added is outermost: see webui/asgi.
    app.add_middleware(EarlyScript)
    app.add_middleware(HeldStreams, total=limits_of(settings).streams)
    app.add_middleware(
        Guard, settings=settings, signer=signer, uploads=uploads, tabs=tabs,
        known=store.has_answers, place=place,
    )  # fmt: skip
    app.add_middleware(StreamsOverWebSocket, place=place)
    app.add_middleware(Front, settings=settings, origins=app.state.origins)
    return app


async def _sweep(uploads: Uploads) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        try:
            await asyncio.to_thread(uploads.sweep)
        except Exception:
            log.exception("uploads could not be swept")


def _routes(app: FastAPI, engine: Engine, store: Store) -> None:
    report = HealthReport(engine, store)

    @app.get("/healthz")
    async def health() -> JSONResponse:
        status, body = await report.tell()
        return JSONResponse(body, status, {"Cache-Control": "no-store"})

    @app.get("/pictures/{picture_id}")
    def picture(picture_id: str, request: Request) -> Response:
        try:
            owner = owner_of(request)
            path = store.picture_path(owner, picture_id)
            mime = store.picture_mime(owner, picture_id)
        except InstructBlipError:
            # Somebody else's picture looks exactly like one that does not exist.
            return JSONResponse({"error": "There is no such picture."}, 404)
        headers = {
            "Cache-Control": "private, max-age=31536000, immutable",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Vary": "Cookie",
        }
        return FileResponse(path, media_type=mime, headers=headers)


def _login_routes(app: FastAPI, settings: Settings, signer: Signer) -> None:
    @app.get("/login")
    def form(request: Request) -> Response:
        if not settings.logins:
            return RedirectResponse(f"{settings.root_path}/", 303)
        return HTMLResponse(_login_page(request, wrong=False))

    @app.post("/login")
    async def enter(request: Request) -> Response:
        values = await request.form()
        name, password = str(values.get("name", "")), str(values.get("password", ""))
        known = settings.logins.get(name)
        # The comparison runs also for an unknown name, so that both take the same time.
        right = hmac.compare_digest((known or "\0").encode(), password.encode())
        if known is None or not right:
            await asyncio.sleep(_WRONG_LOGIN_PAUSE)
            return HTMLResponse(_login_page(request, wrong=True), 401)
        answer = RedirectResponse(f"{settings.root_path}/", 303)
        visitor = signer.visitor_of_login(name, shared=name in settings.shared_logins)
        answer.headers.append("set-cookie", set_cookie(signer, visitor, settings, request.scope))
        return answer

    @app.get("/logout")
    def leave() -> Response:
        answer = RedirectResponse(f"{settings.root_path}/login", 303)
        answer.delete_cookie(COOKIE)
        return answer


def _login_page(request: Request, *, wrong: bool) -> str:
    wanted = request.headers.get("accept-language", "en")[:2]
    lang = wanted if wanted in LANGUAGES else "en"

    def say(key: str) -> str:
        return html.escape(text(lang, key))

    note = f'<p role="alert">{say("login_wrong")}</p>' if wrong else ""
    return f"""<!doctype html><html lang="{lang}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>InstructBLIP</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;
display:grid;place-items:center;min-height:90vh;margin:0}}form{{display:grid;gap:.8rem;width:18rem}}
input,button{{font:inherit;padding:.5rem .7rem;border-radius:.5rem;border:1px solid #8888}}
button{{background:#2563eb;color:#fff;border:0}}p{{color:#dc2626;margin:0}}</style>
<form method="post"><h1>InstructBLIP</h1>{note}
<label>{say("login_name")}<br><input name="name" autocomplete="username" required autofocus></label>
<label>{say("login_password")}<br><input name="password" type="password"
autocomplete="current-password" required></label><button>{say("login_enter")}</button></form></html>"""
