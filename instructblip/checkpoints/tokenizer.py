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


class Tokenizer:
    """Text ↔ ids. LAVIS sets bos = eos = unk = ``</s>`` (blip2_vicuna_instruct.py)."""

    def __init__(self, model_file: Path) -> None:
        try:
            data = model_file.read_bytes()
            self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{model_file} is not a SentencePiece model ({error}). Copy tokenizer.model from "
                "the Vicuna (or LLaMA) folder.",
                code="tokenizer",
                name=str(model_file),
            ) from error
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

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens and ids beyond the vocabulary are left out."""
        return str(self._model.decode([i for i in ids if 0 < i < self.size and i != self.end_id]))

    def vocabulary(self) -> Vocabulary:
        """What prompting needs."""
        return Vocabulary(self.encode, self.start_id, self.end_id, self.fingerprint)
