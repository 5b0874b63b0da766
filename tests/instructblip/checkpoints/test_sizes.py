"""No size is assumed: models of other sizes, written as LAVIS writes them, load as they were."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import InstructBlipForConditionalGeneration

import instructblip
from instructblip.model import InstructBlip
from tests.tiny import make_checkpoint

RENAMED = (
    (r"^vision_model\.embeddings\.class_embedding", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual_encoder.patch_embed.proj"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm", r"visual_encoder.blocks.\1.norm"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.mlp", r"visual_encoder.blocks.\1.mlp"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection",
     r"visual_encoder.blocks.\1.attn.proj"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn", r"visual_encoder.blocks.\1.attn"),
    (r"^vision_model\.post_layernorm", "ln_vision"),
    (r"^language_projection", "llm_proj"),
    (r"^qformer\.embeddings\.layernorm", "Qformer.bert.embeddings.LayerNorm"),
    (r"^qformer\.(.*attention)\.attention\.", r"Qformer.bert.\1.self."),
    (r"^qformer", "Qformer.bert"),
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What is varied; ``freq``: every how many layers the Q-Former looks at the picture."""

    vit: int
    vit_heads: int
    depth: int
    patch: int
    side: int
    qformer: int
    freq: int
    layers: int
    llm: int
    queries: int


def in_lavis_layout(folder: Path, sizes: Sizes) -> InstructBlipForConditionalGeneration:
    """A random model, and its files in LAVIS's layout: the ViT with a block and a head too many."""
    tiny = make_checkpoint(folder / "made")
    words = len((tiny / "qformer_tokenizer" / "vocab.txt").read_text().split("\n"))
    config = json.loads((tiny / "config.json").read_text())
    config["num_query_tokens"] = sizes.queries
    config["vision_config"] |= {
        "hidden_size": sizes.vit, "num_attention_heads": sizes.vit_heads, "patch_size": sizes.patch,
        "num_hidden_layers": sizes.depth, "intermediate_size": 3 * sizes.vit + 1,
        "image_size": sizes.side * sizes.patch,
    }  # fmt: skip
    config["qformer_config"] |= {
        "hidden_size": sizes.qformer, "num_attention_heads": 4, "num_hidden_layers": sizes.layers,
        "intermediate_size": 2 * sizes.qformer + 3, "cross_attention_frequency": sizes.freq,
        "encoder_hidden_size": sizes.vit, "vocab_size": words + 1,
    }  # fmt: skip
    config["text_config"] |= {
        "hidden_size": sizes.llm, "intermediate_size": 90, "head_dim": sizes.llm // 4,
        "num_hidden_layers": 2,
    }  # fmt: skip
    torch.manual_seed(1)
    made = InstructBlipForConditionalGeneration(
        InstructBlipForConditionalGeneration.config_class.from_dict(config)
    )
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, std=0.2)
        if re.search("norm.*weight", name, re.IGNORECASE):
            parameter.data += 1
    for layer in made.vision_model.encoder.layers:  # EVA has no bias for keys
        layer.self_attn.qkv.bias.data[sizes.vit : 2 * sizes.vit] = 0
    made.vision_model.post_layernorm.eps = 1e-5
    write(folder, made, tiny, sizes)
    return made.eval()


def write(folder: Path, made: torch.nn.Module, tiny: Path, sizes: Sizes) -> None:
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    llm = {k.removeprefix("language_model."): state.pop(k)
           for k in list(state) if k.startswith("language_model.")}  # fmt: skip
    words = llm["model.embed_tokens.weight"].shape[0] - 2
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        llm[name] = llm[name][:words].clone()
    renamed = {}
    for name, tensor in state.items():
        for pattern, other in RENAMED:
            new, count = re.subn(pattern, other, name)
            if count:
                name = new
                break
        if name.endswith("attn.qkv.bias"):
            q, _, v = tensor.chunk(3)
            stem = name.removesuffix("qkv.bias")
            renamed |= {stem + "q_bias": q.clone(), stem + "v_bias": v.clone()}
        else:
            renamed[name] = tensor
    prefix = "visual_encoder."
    eva = {k.removeprefix(prefix): renamed.pop(k) for k in list(renamed) if k.startswith(prefix)}
    extra = {k.replace("blocks.0", f"blocks.{sizes.depth}"): v
             for k, v in eva.items() if "blocks.0" in k}  # fmt: skip
    torch.save(eva | extra | {"head.weight": torch.zeros(5, sizes.vit)}, folder / "eva_vit_g.pth")
    torch.save({"model": renamed}, folder / "instruct_blip_vicuna7b_trimmed.pth")
    for name in ("vicuna-7b", "bert-base-uncased"):
        (folder / name).mkdir()
    torch.save(llm, folder / "vicuna-7b" / "pytorch_model.bin")
    config = made.config.text_config.to_dict() | {"vocab_size": words}
    (folder / "vicuna-7b" / "config.json").write_text(json.dumps(config))
    (tiny / "tokenizer.model").rename(folder / "vicuna-7b" / "tokenizer.model")
    (tiny / "qformer_tokenizer" / "vocab.txt").rename(folder / "bert-base-uncased" / "vocab.txt")
    (folder / "bert-base-uncased" / "config.json").write_text('{"num_attention_heads": 4}')
    told = {"vit": {"num_heads": sizes.vit_heads, "depth": sizes.depth}}
    (folder / "config.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(vit=48, vit_heads=3, depth=2, patch=16, side=4, qformer=40, freq=3, layers=5,
              llm=64, queries=7),
        Sizes(vit=24, vit_heads=2, depth=3, patch=8, side=3, qformer=32, freq=1, layers=2,
              llm=32, queries=1),
        Sizes(vit=32, vit_heads=4, depth=1, patch=14, side=2, qformer=64, freq=4, layers=3,
              llm=48, queries=33),
    ],
)  # fmt: skip
def test_other_sizes(tmp_path: Path, sizes: Sizes) -> None:
    made = in_lavis_layout(tmp_path, sizes)
    model = instructblip.load(tmp_path, device="cpu", dtype="float32")
    assert model.properties.query_tokens == sizes.queries
    assert model.properties.image_size == sizes.side * sizes.patch
    wanted, found = made.state_dict(), model.weights.state_dict()
    assert found.keys() == wanted.keys()
    for name in wanted:
        rows = (
            model.tokenizer.size
            if name.endswith(("embed_tokens.weight", "lm_head.weight"))
            else None
        )
        assert torch.equal(found[name][:rows], wanted[name][:rows]), name
    assert (logits(model) - reference(made, model)).abs().max() < 1e-4


def logits(model: InstructBlip) -> torch.Tensor:
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    model.seen = model.pixels(picture)  # type: ignore[attr-defined]
    tokens = model.query(model.encode_image(picture), "a cat")
    embeds = torch.cat([tokens, model.embed(model.tokenizer.encode_as_lavis("a cat"))])
    words = model.tokenizer.size
    return model.weights.language_model(inputs_embeds=embeds[None]).logits[0, -1, :words]


@torch.inference_mode()
def reference(made: InstructBlipForConditionalGeneration, model: InstructBlip) -> torch.Tensor:
    """Transformers' own forward pass of the model that was written."""
    words, image = model.tokenizer.size, model.weights.config.image_token_index
    made.config.image_token_index = image
    ids = [image] * model.properties.query_tokens + model.tokenizer.encode_as_lavis("a cat")
    return made(
        pixel_values=model.seen,  # type: ignore[attr-defined]
        input_ids=torch.tensor([ids]),
        qformer_input_ids=torch.tensor([model.qformer_ids("a cat")]),
    ).logits[0, -1, :words]
