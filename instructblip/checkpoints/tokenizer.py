"""The language model's tokenizer, as LAVIS's slow one reads text.

SentencePiece is called directly: transformers' fast tokenizer differs from it on leading spaces
and after ``</s>``, and a typed ``</s>`` must stay text instead of becoming a control token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from instructblip.conversation import Vocabulary
from instructblip.errors import CheckpointError

# What LAVIS's slow tokenizer takes out of a text before SentencePiece sees it, with the spaces
# around it: the special tokens of Vicuna's files and [PAD], which LAVIS adds.
_SPECIAL = re.compile(r"\s*(</s>|<s>|<unk>|\[PAD\])\s*")


# LLaMA's is half a megabyte; a file of weights under this name is not read.
_MOST_BYTES = 2**28
_COPY = "Copy tokenizer.model from the Vicuna (or LLaMA) folder"


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise _wrong(path, f"cannot be read ({error.strerror})") from error
    if path.exists():
        raise _wrong(path, "is not a SentencePiece model (no file, or one of hundreds of MB)")
    if (path.parent / "tokenizer.json").is_file():
        raise _wrong(
            path, "is not there, only tokenizer.json is: transformers 5 saves a processor and a "
            "tokenizer so. Texts are read here as Vicuna's own tokenizer reads them, which needs it",
        )  # fmt: skip
    raise _wrong(path, "cannot be read (No such file or directory)")


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} {what}. {_COPY}.", code="tokenizer", name=str(path))


class Tokenizer:
    """Text ↔ ids. LAVIS sets bos = eos = unk = ``</s>`` (blip2_vicuna_instruct.py)."""

    def __init__(self, model_file: Path) -> None:
        data = _read(model_file)
        if not data:  # the library takes it for a model without words
            raise _wrong(model_file, "is empty")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
        except Exception as error:  # whatever bytes of unknown origin set off in the library
            raise _wrong(model_file, f"is not a SentencePiece model ({error})") from error
        if int(self._model.eos_id()) < 0:
            raise _wrong(model_file, "is not a SentencePiece model with an end of text (</s>)")
        self.start_id = self.end_id = int(self._model.eos_id())
        self.size = int(self._model.vocab_size())
        self.fingerprint = hashlib.sha256(data).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Ids without special tokens."""
        return list(self._model.encode(text))

    def encode_as_lavis(self, text: str) -> list[int]:
        """Ids as LAVIS's slow tokenizer gives them: ``</s>`` first, typed special tokens as such.

        [PAD] gets the first id after the vocabulary. Only for LAVIS's own calls: in a chat a typed
        ``</s>`` stays text, see :meth:`encode`.
        """
        ids = [self.start_id]
        for place, piece in enumerate(_SPECIAL.split(text)):
            if place % 2 == 0:
                ids += self.encode(piece)
            else:
                ids.append(self.size if piece == "[PAD]" else int(self._model.piece_to_id(piece)))
        return ids

    def id_of(self, piece: str) -> int:
        """The id of a piece; that of <unk> where it has none."""
        return int(self._model.piece_to_id(piece))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens and ids beyond the vocabulary are left out."""
        return str(self._model.decode([i for i in ids if 0 < i < self.size and i != self.end_id]))

    def vocabulary(self) -> Vocabulary:
        """What prompting needs."""
        return Vocabulary(self.encode, self.start_id, self.end_id, self.fingerprint)
