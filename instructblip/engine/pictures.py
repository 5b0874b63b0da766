"""Pictures known to an engine: bytes as registered, features and image tokens as computed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from instructblip.engine.base import PastTurn
from instructblip.errors import UnknownTurn
from instructblip.images import open_upright
from instructblip.model import ImageFeatures, InstructBlip


class BoundedCache:
    """A least-recently-used map, bounded by bytes. Losing an entry costs time, never an answer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of ``size`` bytes; the oldest go until all fits, the new one never."""
        with self._lock:
            if key in self._items:
                self._size -= self._items.pop(key)[1]
            self._items[key] = (value, size)
            self._size += size
            while self._size > self._limit and len(self._items) > 1:
                self._size -= self._items.popitem(last=False)[1][1]

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._items

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._size


class Pictures:
    """Bytes, ViT features and image tokens by picture id, each in its bounded cache."""

    def __init__(self, bytes_limit: int = 256 * 2**20, tensor_limit: int = 256 * 2**20) -> None:
        self._data = BoundedCache(bytes_limit)
        self._features = BoundedCache(tensor_limit)
        self._tokens = BoundedCache(tensor_limit)

    def register(self, picture_id: str, data: bytes) -> None:
        """Keep a picture's bytes after checking that they decode."""
        if picture_id not in self._data:
            open_upright(data)
            self._data.put(picture_id, data, len(data))

    def __contains__(self, picture_id: str) -> bool:
        return picture_id in self._data

    def require(self, picture_id: str) -> None:
        """Raise UnknownTurn unless the picture can be encoded."""
        if picture_id not in self._data and self._features.get(picture_id) is None:
            raise UnknownTurn(
                f"Picture {picture_id} is not known to the engine; register its bytes first.",
                code="unknown_picture",
                picture=picture_id,
            )

    def tokens(self, model: InstructBlip, turn: PastTurn, unit: Callable[[str], None]) -> Tensor:
        """Image tokens [query_tokens, width] of a turn; ``unit`` is called after each piece of work."""
        key = (turn.picture_id, turn.qformer_text)
        found: Tensor | None = self._tokens.get(key)
        if found is None:
            found = model.query(self._encoded(model, turn.picture_id, unit), turn.qformer_text)
            self._tokens.put(key, found, found.numel() * found.element_size())
            unit("query")
        return found

    def _encoded(
        self, model: InstructBlip, picture_id: str, unit: Callable[[str], None]
    ) -> ImageFeatures:
        found: ImageFeatures | None = self._features.get(picture_id)
        if found is None:
            self.require(picture_id)
            found = model.encode_image(open_upright(self._data.get(picture_id)))
            self._features.put(picture_id, found, found.nbytes)
            unit("encode")
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all three caches."""
        return self._data.nbytes + self._features.nbytes + self._tokens.nbytes
