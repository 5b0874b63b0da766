"""Pictures known to an engine: bytes as registered, features and image tokens as computed."""

from __future__ import annotations

from torch import Tensor

from instructblip.bounded import BoundedCache
from instructblip.conversation import ImageSegment
from instructblip.errors import UnknownTurn
from instructblip.images import open_upright
from instructblip.model import ImageFeatures, InstructBlip


class Pictures:
    """Bytes, ViT features and image tokens by picture id, each in its bounded cache."""

    def __init__(self, tensor_limit: int = 2**28) -> None:
        self._data = BoundedCache(2**28)
        self._features = BoundedCache(tensor_limit * 15 // 16)
        self._tokens = BoundedCache(tensor_limit // 16)

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
                code="unknown_picture", picture=picture_id,
            )  # fmt: skip

    def tokens(self, model: InstructBlip, segment: ImageSegment) -> tuple[Tensor | None, str]:
        """Image tokens [query_tokens, width] as one unit of work towards them allows.

        → (tokens, "query") or (None, "encode") after a unit, (tokens, "") when they are known.
        """
        key = (segment.picture_id, segment.qformer_text)
        found: Tensor | None = self._tokens.get(key)
        if found is not None:
            return found, ""
        features: ImageFeatures | None = self._features.get(segment.picture_id)
        if features is None:
            self._encode(model, segment.picture_id)
            return None, "encode"
        found = model.query(features, segment.qformer_text)
        # The first question adds the Q-Former's keys and values to what is held.
        self._features.put(segment.picture_id, features, features.nbytes)
        self._tokens.put(key, found, found.numel() * found.element_size())
        return found, "query"

    def _encode(self, model: InstructBlip, picture_id: str) -> None:
        self.require(picture_id)
        features = model.encode_image(open_upright(self._data.get(picture_id)))
        self._features.put(picture_id, features, features.nbytes)

    def clear_tensors(self) -> None:
        """Give back what the device holds; it is computed again when needed."""
        self._features.clear()
        self._tokens.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all three caches."""
        return self._data.nbytes + self._features.nbytes + self._tokens.nbytes
