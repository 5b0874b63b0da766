"""The maker of real-size files, in small: what it writes is a checkpoint in LAVIS's layout."""

from pathlib import Path

from PIL import Image

import instructblip
from tests.real_size import Sizes, write

SMALL = Sizes(
    vit=176, vit_inner=200, blocks=3, positions=5, patch=14, qformer=64, qformer_inner=80,
    qformer_layers=4, bert_words=3100, queries=4, llm=64, llm_inner=90, llm_layers=3, llm_heads=4,
    words=1100,
)  # fmt: skip


def test_what_it_writes_loads(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    model = instructblip.load(tmp_path, device="cpu")
    assert model.tokenizer.size == 1100
    assert model.weights.config.vision_config.num_attention_heads == 2
    tokens = model.query(model.encode_image(Image.new("RGB", (30, 30))), "What is it?")
    assert tokens.shape == (4, 64)
    assert tokens.isfinite().all()
