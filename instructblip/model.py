"""InstructBLIP in the parts that a chat needs: encode a picture once, query it for each turn.

The mathematics is transformers'; this class names the steps and keeps shapes in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instructblip.images import CLIP_MEAN, CLIP_STD
from instructblip.properties import Properties


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the ViT made of one picture: ``embeds`` of shape [1, patches + 1, width].

    It depends on the picture only, so it is made once and taken by each later question.
    """

    embeds: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return self.embeds.numel() * self.embeds.element_size()


class InstructBlip:
    """ViT, Q-Former, projection and language model of one checkpoint on one device.

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
        self.dtype: torch.dtype = weights.dtype
        self.text_config = weights.config.get_text_config()

    def pixels(self, picture: Image.Image) -> Tensor:
        """[1, 3, S, S] of an RGB picture: bicubic resize to a square, CLIP mean and std.

        Source: LAVIS's BlipImageEvalProcessor (lavis/processors/blip_processors.py).
        """
        size = self.properties.image_size
        small = picture.resize((size, size), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255.0).permute(2, 0, 1)
        mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        normal = (values - mean[:, None, None]) / std[:, None, None]
        return normal[None].to(self.device, self.dtype)

    @torch.inference_mode()
    def encode_image(self, picture: Image.Image) -> ImageFeatures:
        """Run the ViT on an RGB picture."""
        return ImageFeatures(self.weights.vision_model(self.pixels(picture)).last_hidden_state)

    def qformer_ids(self, text: str) -> list[int]:
        """Ids of an instruction with [CLS] and [SEP], cut as the properties say."""
        tokenizer, limit = self._qformer_tokenizer, self.properties.qformer_max_tokens
        tokenizer.truncation_side = self.properties.qformer_truncation
        return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])

    @torch.inference_mode()
    def query(self, features: ImageFeatures, text: str) -> Tensor:
        """Image tokens [query_tokens, llm width] of a picture as read with an instruction."""
        ids = torch.tensor([self.qformer_ids(text)], device=self.device)
        queries = self.weights.query_tokens.to(self.dtype)
        count = queries.shape[1]
        mask = torch.ones(1, count + ids.shape[1], dtype=torch.long, device=self.device)
        seen = torch.ones(features.embeds.shape[:2], dtype=torch.long, device=self.device)
        output = self.weights.qformer(
            input_ids=ids,
            attention_mask=mask,
            query_embeds=queries,
            encoder_hidden_states=features.embeds,
            encoder_attention_mask=seen,
        ).last_hidden_state
        projected: Tensor = self.weights.language_projection(output[:, :count])
        return projected[0]

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings [n, llm width] of token ids."""
        table = self.weights.language_model.get_input_embeddings()
        embeds: Tensor = table(torch.tensor(list(ids), dtype=torch.long, device=self.device))
        return embeds

    @torch.inference_mode()
    def forward(self, embeds: Tensor, cache: Any, start: int) -> Tensor:
        """Run the language model over ``embeds`` [n, width] at positions ``start``….

        ``cache`` receives the keys and values. Returns the last position's logits [vocabulary]
        in fp32, with ids that are no text ([PAD], ``<image>``) set to -inf.
        """
        positions = torch.arange(start, start + embeds.shape[0], device=self.device)[None]
        hidden = self.weights.language_model.model(
            inputs_embeds=embeds[None],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits: Tensor = self.weights.language_model.lm_head(hidden[:, -1])[0].float()
        logits[self.tokenizer.size :] = -torch.inf
        return logits

    def unload(self) -> None:
        """Drop the weights, so that their memory can be freed."""
        self.weights = None
