"""InstructBLIP in the parts that a chat needs: encode a picture once, query it for each turn.

The mathematics is transformers'; this class names the steps and keeps shapes in one place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instructblip.attention import Attending, keep_projections, use_slots
from instructblip.devices import Graphs, can_capture, short_products
from instructblip.engine.base import ModelCard
from instructblip.fused_layers import fuse_for
from instructblip.images import CLIP_MEAN, CLIP_STD
from instructblip.kernels import Angles
from instructblip.properties import Properties
from instructblip.spread import connect

# Texts of the Q-Former are padded to a multiple of this where its forward is recorded.
TEXT_STEP = 16

if TYPE_CHECKING:
    from instructblip.generation import GenerationOptions, Progress, Sample


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the ViT made of one picture: ``embeds`` of shape [1, patches + 1, width].

    It depends on the picture only, so it is made once and taken by each later question. The
    Q-Former's keys and values of the picture join it at the first one (``projections``).
    """

    embeds: Tensor
    projections: dict[int, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return sum(t.numel() * t.element_size() for t in (self.embeds, *self.projections.values()))


class InstructBlip:
    """ViT, Q-Former, projection and language model of one checkpoint on one device.

    The language model's layers may lie on further ones (:mod:`instructblip.spread`).

    Not thread-safe: one thread owns the device (see :mod:`instructblip.engine.local`).
    """

    def __init__(
        self, weights: Any, tokenizer: Any, qformer_tokenizer: Any, properties: Properties
    ) -> None:
        self.weights = weights
        self.tokenizer = tokenizer
        self.properties = properties
        self.vocabulary = tokenizer.vocabulary()
        self._qformer_tokenizer = qformer_tokenizer
        self.device: torch.device = weights.device
        # ViT and language model; the Q-Former and the projection may be more precise.
        self.dtype: torch.dtype = weights.language_model.dtype
        self.text_config = weights.config.get_text_config()
        use_slots(weights.language_model)
        fuse_for(weights, self.device)
        self._projections = keep_projections(weights.qformer)
        self.layer_devices = connect(weights)
        # All that hold a part of the model, the first one first.
        self.devices = tuple(dict.fromkeys(p.device for p in weights.parameters()))
        self._graphs = Graphs(*self.devices)

    def pixels(self, picture: Image.Image) -> Tensor:
        """[1, 3, S, S] of an RGB picture: bicubic resize to a square, CLIP mean and std.

        Source: LAVIS's BlipImageEvalProcessor (lavis/processors/blip_processors.py).
        """
        size = self.properties.image_size
        small = picture.resize((size, size), Image.Resampling.BICUBIC)
        # In numpy: of so few numbers torch's threads would take most of the time.
        values = np.asarray(small, dtype=np.float32) / np.float32(255)
        normal = (values - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
        whole = torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))
        return whole[None].to(self.device).to(self.dtype)

    @torch.inference_mode()
    def encode_image(self, picture: Image.Image) -> ImageFeatures:
        """Run the ViT on an RGB picture."""
        return ImageFeatures(self._graphs.run("vision", self._vision, self.pixels(picture)))

    def _vision(self, pixels: Tensor) -> Tensor:
        """[1, 3, S, S] → [1, patches + 1, width]."""
        features: Tensor = self.weights.vision_model(pixels).last_hidden_state
        return features

    def qformer_ids(self, text: str) -> list[int]:
        """Ids of an instruction with [CLS] and [SEP], cut as the properties say."""
        tokenizer, limit = self._qformer_tokenizer, self.properties.qformer_max_tokens
        tokenizer.truncation_side = self.properties.qformer_truncation
        return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])

    @torch.inference_mode()
    def query(self, features: ImageFeatures, text: str) -> Tensor:
        """Image tokens [query_tokens, llm width] of a picture as read with an instruction."""
        ids = torch.tensor([self.qformer_ids(text)])
        if can_capture(*self.devices):  # one graph for a few lengths; keys and values inside of it
            count, size = ids.shape[1], -(-ids.shape[1] // TEXT_STEP) * TEXT_STEP
            seen = torch.arange(self.properties.query_tokens + size) < (
                self.properties.query_tokens + count
            )
            ids = torch.nn.functional.pad(ids, (0, size - count))
            mask = seen[None, None, None].to(self.device)
            return self._graphs.run(
                "query", self._qformer, features.embeds, ids.to(self.device), mask
            )
        with self._keeping(features.projections):  # nothing is padded, so no masks
            return self._qformer(features.embeds, ids.to(self.device))

    def _qformer(self, embeds: Tensor, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features, ids [1, n] and what of queries and text is none of the padding → image tokens."""
        precise = self.weights.language_projection.weight.dtype
        queries = self.weights.query_tokens.to(precise)
        with short_products(self.device, self.dtype):
            output = self.weights.qformer(
                input_ids=ids,
                attention_mask=seen,
                query_embeds=queries,
                encoder_hidden_states=embeds.to(precise),
            ).last_hidden_state
            projected: Tensor = self.weights.language_projection(output[:, : queries.shape[1]])
        return projected[0].to(self.dtype)

    @contextlib.contextmanager
    def _keeping(self, projections: dict[int, Tensor]) -> Iterator[None]:
        for module in self._projections:
            module.kept = projections
        try:
            yield
        finally:
            for module in self._projections:
                module.kept = None

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings [n, llm width] of token ids."""
        table = self.weights.language_model.get_input_embeddings()
        embeds: Tensor = table(torch.tensor(list(ids), dtype=torch.long, device=self.device))
        return embeds

    @torch.inference_mode()
    def table(self, ids: Tensor) -> Tensor:
        """Embeddings [..., llm width] of ids that are on the device."""
        embeds: Tensor = self.weights.language_model.get_input_embeddings()(ids)
        return embeds

    @torch.inference_mode()
    def run(self, embeds: Tensor, positions: Tensor, slots: Attending) -> Tensor:
        """The language model's layers over ``embeds`` [B, n, width] at ``positions`` [B, n].

        ``slots`` keeps keys and values. Returns the last hidden states [B, n, width].
        """
        llm = self.weights.language_model.model
        angles = Angles.of(*llm.rotary_emb(embeds, position_ids=positions))
        hidden = embeds
        for layer in llm.layers:
            hidden = layer(hidden, position_embeddings=angles, slots=slots)
        normed: Tensor = llm.norm(hidden)
        return normed

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """[n, width] → [n, vocabulary] in fp32; ids that are no text ([PAD], ``<image>``) at -inf."""
        logits: Tensor = self.weights.language_model.lm_head(hidden).float()
        logits[:, self.tokenizer.size :] = -torch.inf
        return logits

    @overload
    def generate(
        self,
        images: Sequence[Sample],
        prompts: str | Sequence[str],
        *,
        return_ids: Literal[False] = False,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        images: Sequence[Sample],
        prompts: str | Sequence[str],
        *,
        return_ids: Literal[True],
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> tuple[list[str], list[list[int]]]: ...

    def generate(
        self,
        images: Sequence[Sample],
        prompts: str | Sequence[str],
        *,
        return_ids: bool = False,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[str] | tuple[list[str], list[list[int]]]:
        """Answer as LAVIS does: :func:`instructblip.generation.generate` says what is taken.

        ``options`` are the fields of :class:`~instructblip.generation.GenerationParams`, with
        LAVIS's defaults. Returns texts, and with ``return_ids`` the ids as well.
        """
        from instructblip.generation import GenerationParams, generate

        texts, ids = generate(self, images, prompts, GenerationParams(**options), progress)
        return (texts, ids) if return_ids else texts

    def predict_answers(
        self,
        images: Sequence[Sample],
        questions: str | Sequence[str],
        num_beams: int = 5,
        inference_method: str = "generate",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: Sequence[str] | None = None,
        prompt: str = "",
        length_penalty: float = 0,
        *,
        choices: Sequence[Sequence[str]] | None = None,
        return_ids: bool = False,
        progress: Progress | None = None,
    ) -> list[str] | tuple[list[str], list[list[int]]]:
        """Short answers, as LAVIS gives them: :func:`instructblip.generation.predict_answers`.

        ``inference_method``, ``num_ans_candidates`` and ``answer_list`` are taken for the sake of
        LAVIS's callers and change nothing, as in LAVIS.
        """
        from instructblip.generation import GenerationParams, predict_answers

        params = GenerationParams(
            num_beams=num_beams,
            max_length=max_len,
            min_length=min_len,
            length_penalty=length_penalty,
        )
        texts, ids = predict_answers(self, images, questions, prompt, params, progress, choices)
        return (texts, ids) if return_ids else texts

    def predict_class(
        self,
        images: Sequence[Sample],
        prompts: str | Sequence[str],
        candidates: Sequence[str] | Sequence[Sequence[str]],
        n_segments: int = 1,
        *,
        progress: Progress | None = None,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Rank answers, as LAVIS does. → ranks and losses of each sample.

        See :func:`instructblip.candidates.predict_class`.
        """
        from instructblip.candidates import predict_class

        return predict_class(self, images, prompts, candidates, n_segments, progress)

    def card(self) -> ModelCard:
        """What a page tells about it."""
        p = self.properties
        return ModelCard(
            name=p.name,
            device=",".join(map(str, self.devices)),
            dtype=str(self.dtype).removeprefix("torch."),
            licence=p.licence,
            default_layout=p.default_layout,
            layouts=p.layouts,
            context_length=p.context_length,
            image_size=p.image_size,
            tokenizer=self.vocabulary.fingerprint,
            languages=p.languages,
            world=p.world,
            can_ask=p.can_ask,
            refusals=p.refusals,
            generation=p.generation,
            scenes=p.scenes,
        )

    def unload(self) -> None:
        """Drop the weights, so that their memory can be freed."""
        self.weights = None
