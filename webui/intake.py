"""How a picture comes to be kept: a stranger's is read elsewhere, the server's own ones here."""

from __future__ import annotations

import asyncio
import io
import secrets
from pathlib import Path

from webui.decoding import Decoder
from webui.i18n import text
from webui.store import Store
from webui.uploads import Uploads
from webui.view import Who

SCENE_SIZE = 224  # pixels: larger than the embedded model sees, for people to look at


class Intake:
    """Pictures on their way into the store; each way gives the kept picture's id.

    Args:
        store: where they are kept.
        decoder: reads strangers' files.
        uploads: what has come from browsers.
    """

    def __init__(self, store: Store, decoder: Decoder, uploads: Uploads) -> None:
        self._store, self._decoder, self._uploads = store, decoder, uploads

    async def upload(self, who: Who, path: str) -> tuple[str, str]:
        """A file that the asker has uploaded; the id, and what the asker should know of it, or "".

        Raises:
            UnknownTurn: it is somebody else's, or gone.
            Busy, PictureError, EngineStopped: as :meth:`webui.decoding.Decoder.read`.
        """
        prepared = await self._decoder.read(who.client, lambda: self._uploads.read(who.owner, path))
        name = Path(path).name
        keep = self._store.keep_picture
        picture_id = await asyncio.to_thread(keep, who.owner, prepared, name)
        self._uploads.used(path, picture_id)
        said = " ".join(text(who.language, f"hint_{code}") for code in prepared.notes)
        return picture_id, said

    async def own(self, who: Who, data: bytes, name: str) -> str:
        """A picture of the server's own, as its examples are."""
        return await asyncio.to_thread(self._store.add_picture, who.owner, data, name)

    async def scene(self, who: Who, languages: str) -> tuple[str, tuple[str, ...]]:
        """A new scene of the embedded model's world, and questions about it."""

        def compose() -> tuple[str, tuple[str, ...]]:
            from instructblip import scenes, suggestions

            scene = scenes.compose(secrets.randbelow(2**31), size=SCENE_SIZE)
            out = io.BytesIO()
            scene.image.save(out, "PNG")
            asks = suggestions.ask_suggestions(scene, languages)
            return self._store.add_picture(who.owner, out.getvalue(), "scene.png"), tuple(asks)

        return await asyncio.to_thread(compose)
