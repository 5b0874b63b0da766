"""The FastAPI parent: owner cookie, pictures, login, health, and Gradio mounted in it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError
from webui.accounts import Accounts
from webui.asgi.descriptors import limits_of
from webui.asgi.front import Front
from webui.asgi.guard import Guard
from webui.asgi.held import HeldStreams
from webui.asgi.inputs import Events
from webui.asgi.login import Logins, login_routes
from webui.asgi.place import Place
from webui.asgi.rendered import RenderedPage
from webui.asgi.streams import StreamsOverWebSocket
from webui.decoding import Decoder
from webui.health import HealthReport
from webui.inline import convert_inline
from webui.picture_reader import Limits
from webui.runs import Runs
from webui.sessions import Signer, load_key, owner_of
from webui.settings import Settings
from webui.store import Store
from webui.tab_state import keep_state_alone
from webui.tabs import GradioTables, Tabs
from webui.theme import EarlyScript, page_look
from webui.upload_routes import add_file_routes
from webui.uploads import Uploads, private_folder

log = logging.getLogger(__name__)

BuildPage = Callable[..., gr.Blocks]
_SWEEP = 30.0  # seconds between two looks at the uploads


def create_app(
    settings: Settings, engine: Engine, store: Store, runs: Runs, build_page: BuildPage,
    accounts: Accounts | None = None,
) -> FastAPI:  # fmt: skip
    """The whole server as one ASGI app; ``app.state.origins`` takes further addresses.

    ``accounts``: made of the settings unless given.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    uploads = Uploads(Path(private_folder()))
    signer = Signer(load_key(Path(settings.data)))
    accounts = accounts or Accounts(settings, signer)
    logins = Logins(accounts, signer, settings.root_path)
    decoder = Decoder(Limits(file=settings.max_upload * 2**20))
    store.on_released = uploads.released

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(accounts.ready)
        decoder.open()
        watching = [asyncio.create_task(tabs.watch()), asyncio.create_task(_sweep(uploads))]
        yield
        for task in watching:
            task.cancel()
        logins.close()
        await asyncio.to_thread(decoder.close)
        await runs.close()
        await asyncio.to_thread(engine.close, 1.0)

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.origins = {origin.lower() for origin in settings.origins}
    app.state.accounts = accounts
    _routes(app, engine, store)
    login_routes(app, logins)
    add_file_routes(app, uploads, settings.max_upload * 2**20)
    convert_inline()
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
    keep_state_alone(app, page)
    tabs = Tabs(GradioTables(page.state_holder, page._queue))
    place = Place(settings.loopback, lambda: accounts.asked, app.state.origins)
    # The last one added is outermost: see webui/asgi.
    app.add_middleware(EarlyScript)
    app.add_middleware(RenderedPage)
    app.add_middleware(HeldStreams, total=limits_of(settings).streams)
    app.add_middleware(
        Guard, settings=settings, signer=signer, accounts=accounts, uploads=uploads, tabs=tabs,
        known=store.has_answers, place=place, events=Events(page),
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
