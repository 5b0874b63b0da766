"""The FastAPI parent: owner cookie, pictures, login, health, and Gradio mounted in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from instructblip.engine.base import Engine
from instructblip.errors import InstructBlipError
from webui.accounts import Accounts
from webui.asgi.login import Logins, login_routes
from webui.guard import Guard
from webui.runs import Runs
from webui.sessions import Signer, load_key, owner_of
from webui.settings import Settings
from webui.store import Store
from webui.streams import StreamsOverWebSocket
from webui.tabs import ClosedTabs
from webui.theme import EarlyScript, page_look
from webui.uploads import Uploads, private_folder

BuildPage = Callable[..., gr.Blocks]


def create_app(
    settings: Settings, engine: Engine, store: Store, runs: Runs, build_page: BuildPage,
    accounts: Accounts | None = None,
) -> FastAPI:  # fmt: skip
    """The whole server as one ASGI app; ``app.state.origins`` takes further addresses.

    ``accounts``: made of the settings unless given.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    private_folder()
    signer, uploads = Signer(load_key(Path(settings.data))), Uploads()
    accounts = accounts or Accounts(settings, signer)
    logins = Logins(accounts, signer, settings.root_path)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(accounts.ready)
        watching = asyncio.create_task(ClosedTabs(page.state_holder).watch())
        yield
        watching.cancel()
        logins.close()
        await runs.close()
        await asyncio.to_thread(engine.close, 1.0)

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.origins = {origin.lower() for origin in settings.origins}
    app.state.accounts = accounts
    _routes(app, engine, store)
    login_routes(app, logins)
    page = build_page(engine, store, runs, owner_of=owner_of, owned_upload=uploads.read)
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
    app.add_middleware(EarlyScript)
    app.add_middleware(
        Guard, settings=settings, signer=signer, accounts=accounts, uploads=uploads,
        origins=app.state.origins,
    )  # fmt: skip
    # Outermost: what comes over a WebSocket passes the guard as the request that it stands for.
    app.add_middleware(StreamsOverWebSocket)
    return app


def _routes(app: FastAPI, engine: Engine, store: Store) -> None:
    @app.get("/healthz")
    def health() -> JSONResponse:
        counts = engine.statistics()
        return JSONResponse({"ok": True, "model": engine.card.name, **_public(counts)})

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


def _public(counts: dict[str, Any]) -> dict[str, Any]:
    return {k: counts[k] for k in ("waiting", "running") if k in counts}
