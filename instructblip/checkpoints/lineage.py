"""Which language model a folder of LLaMA's architecture holds, as far as its small files tell.

InstructBLIP was trained on Vicuna v1.1. Others load as well as that one and answer wrongly, so what
can be told is told before anything is loaded. Vicuna v1.1, Vicuna v1.3 and LLaMA itself have the
same values: FastChat's apply_delta saves the configuration of the LLaMA it was given. Only the
weights' checksums tell these apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructblip.checkpoints.tokenizer import Tokenizer
from instructblip.checkpoints.values import peek_json, shown
from instructblip.errors import CheckpointError

CONFIG, GENERATION = "config.json", "generation_config.json"
WANTED = "InstructBLIP was trained on Vicuna v1.1 (vicuna-7b-delta-v1.1 merged with LLaMA-7B)"
PROOF = (
    "What proves it: the checksums of its weight files beside those of vicuna-7b-v1.1 (or 13b), or a "
    "merge of your own with python -m instructblip vicuna."
)


@dataclass(frozen=True, slots=True)
class Family:
    """Language models with the same values in their files.

    ``marks``: file → key → value, all of which hold. ``wanted``: Vicuna v1.1 is one of them.
    ``word`` names it in a file of sizes. ``source`` is where the values are reported.
    """

    name: str
    word: str
    marks: Mapping[str, Mapping[str, Any]]
    source: str
    wanted: bool = False


# The first whose marks all hold. Each value was reported in public: no machine of ours holds weights.
FAMILIES = (
    Family(
        "LLaMA 3", "llama-3", {CONFIG: {"rope_theta": 500000.0}},
        "Meta-Llama-3.1-8B's params.json",
    ),
    Family(
        "Code Llama", "code-llama", {CONFIG: {"rope_theta": 1000000.0}},
        "meta-llama/codellama issue 188",
    ),
    Family(
        "LLaMA 2 with longer positions (as Vicuna v1.5-16k)", "llama-2",
        {CONFIG: {"rms_norm_eps": 1e-5, "rope_type": "linear"}},
        "FastChat, docs/vicuna_weights_version.md: v1.5, linear RoPE scaling on LLaMA 2",
    ),
    Family(
        "LLaMA 2 (as Vicuna v1.5 and LLaMA-2-chat)", "llama-2", {CONFIG: {"rms_norm_eps": 1e-5}},
        "ggml-org/llama.cpp pull request 2384; oobabooga/textgen pull request 3524 for Vicuna v1.5; "
        "huggingface/transformers issue 28241 for a conversion with 2048 positions",
    ),
    Family(
        "the first LLaMA (Vicuna v1.1 and v1.3 are, and so is LLaMA itself)", "llama-1",
        {CONFIG: {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 10000.0,
                  "rope_type": "default", "attention_bias": False, "mlp_bias": False}},
        "Lightning-AI/lit-llama pull request 339 (1e-6 in the checkpoints of LLaMA); "
        "huggingface/transformers issue 24986 (2048 positions)", wanted=True,
    ),
)  # fmt: skip
# Values that only another family is reported with, but that a user may have set by hand.
DOUBTS = (
    Family(
        "LLaMA 2", "llama-2", {GENERATION: {"temperature": 0.9, "top_p": 0.6}},
        "haotian-liu/LLaVA issue 1144 (Vicuna v1.5); hiyouga/LlamaFactory issue 2767 (LLaMA-2-7b)",
    ),
    Family(
        "LLaMA 2 in a conversion of its first days", "llama-2", {CONFIG: {"max_length": 4096}},
        "lm-sys/FastChat issue 2046 (beside 2048 positions); meta-llama/llama issue 771 "
        "(rms_norm_eps 1e-6 in LLaMA-2-7b-chat until October 2023)",
    ),
    Family(
        "Vicuna v0, which adds [PAD]", "vicuna-v0", {CONFIG: {"vocab_size": 32001}},
        "lm-sys/FastChat issue 363; mlc-ai/web-llm pull request 33",
    ),
    Family(
        "LLaMA itself, not Vicuna", "llama-1", {CONFIG: {"architecture": "LLaMAForCausalLM"}},
        "huggingface/transformers issue 22222 (names before 4.28, as decapoda-research has them); "
        "salesforce/LAVIS issue 680 (InstructBLIP on it answers nothing)",
    ),
)  # fmt: skip
# The piece's id in the tokenizer of LLaMA and LLaMA 2, of 32,000 words. OpenLLaMA has as many.
# Source: the example of transformers' LlamaTokenizer documentation, "Hello" → 15043.
LLAMA_WORDS, LLAMA_PIECE, LLAMA_ID = 32000, "▁Hello", 15043
# What a config.json's _name_or_path holds where its model was made from another one.
_OTHER_NAMES = ("v1.3", "v1.5", "llama-2", "llama2", "llama-3")
FAMILY_WORDS = frozenset(family.word for family in FAMILIES)
# Values a config.json means when it does not say them: transformers' LlamaConfig.
_DEFAULTS = {
    "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 10000.0,
    "rope_type": "default", "attention_bias": False, "mlp_bias": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the files tell: a family or none, the values it was told by, and what speaks against it.

    ``doubts``: the word of another family, and the values that are reported of that one.
    """

    family: Family | None
    told_by: str
    doubts: tuple[tuple[str, str], ...] = ()

    def note(self, *, fits: str | None = None) -> str:
        """What to say of a model that is used all the same; empty where nothing is odd.

        Args:
            fits: a family's word that is no doubt here (LLaMA, where a base is wanted).
        """
        doubts = [said for family, said in self.doubts if family != fits]
        if self.family is not None and not doubts:
            return ""
        said = "; ".join((*([] if self.family else [self.told_by]), *doubts))
        return f"cannot be told to be what InstructBLIP wants: {said}. {WANTED}. {PROOF}"

    def __str__(self) -> str:
        """One sentence for a report."""
        if self.family is None:
            return f"its files are those of no language model that is known: {self.told_by}."
        more = f" Its files tell no more. {PROOF}" if self.family.wanted else ""
        return f"by its files, {self.family.name}.{more}"


def tell(folder: Path, config: Mapping[str, Any]) -> Verdict:
    """Which language model a folder holds.

    Args:
        folder: where generation_config.json may lie.
        config: its config.json, checked.
    """
    files = {CONFIG: _plain(config), GENERATION: peek_json(folder / GENERATION)}
    family = next((f for f in FAMILIES if _holds(f, files)), None)
    doubts = [
        (other.word, f"{_words(other.marks)}, as of {other.name}")
        for other in DOUBTS
        if _holds(other, files)
    ]
    name = config.get("_name_or_path")
    if isinstance(name, str) and any(word in name.lower() for word in _OTHER_NAMES):
        doubts.append(("", f"{CONFIG} says that it came from {shown(name)}"))
    told_by = _words(family.marks) if family else _differences(files[CONFIG])
    return Verdict(family, told_by, tuple(doubts))


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with what it means by silence, and its old forms in one place."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = rope if isinstance(rope, Mapping) else {}
    said: dict[str, Any] = {**_DEFAULTS, **config}
    said["rope_theta"] = rope.get("rope_theta", said["rope_theta"])
    said["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
    names = config.get("architectures")
    said["architecture"] = names[0] if isinstance(names, list) and names else None
    return said


def _holds(family: Family, files: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        _same(files[file].get(key), value)
        for file, marks in family.marks.items()
        for key, value in marks.items()
    )


def _same(found: Any, wanted: Any) -> bool:
    """Equal; numbers to four digits, as 1e-5 may have been a float32."""
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return math.isclose(found, wanted, rel_tol=1e-4)
    return bool(found == wanted)


def _words(marks: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{file} has {', '.join(f'{k} = {v!r}' for k, v in keys.items())}"
        for file, keys in marks.items()
    )


def _differences(config: Mapping[str, Any]) -> str:
    """Where a config.json differs from the wanted family's."""
    wanted = next(family for family in FAMILIES if family.wanted).marks[CONFIG]
    others = [f"{k} = {shown(config.get(k))} instead of {v!r}" for k, v in wanted.items()
              if not _same(config.get(k), v)]  # fmt: skip
    return f"{CONFIG} has {', '.join(others)}"


def check_words(folder: Path, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer of as many words as LLaMA's that is another one.

    Raises:
        CheckpointError: its words have other ids.
    """
    if tokenizer.size == LLAMA_WORDS and tokenizer.id_of(LLAMA_PIECE) != LLAMA_ID:
        raise CheckpointError(
            f"{folder} is made of another model than LLaMA: its tokenizer.model has as many words, "
            f"but {LLAMA_PIECE!r} is not number {LLAMA_ID} (OpenLLaMA is such a model). {WANTED}.",
            code="checkpoint_misfit",
            name=str(folder),
        )


def check_family(folder: Path, verdict: Verdict, then: str, trained_on: str | None = None) -> None:
    """Refuse a model that is known to be of another family than Vicuna v1.1 and its base.

    Args:
        folder: of the model.
        verdict: what its files tell.
        then: what to do, as a sentence.
        trained_on: the word of the family that the Q-Former was trained on, if not the first LLaMA.

    Raises:
        CheckpointError: what it is, by which value, and what to do.
    """
    family = verdict.family
    if family is None or family.wanted or family.word == trained_on:
        return
    raise CheckpointError(
        f"{folder} is made of {family.name}: {verdict.told_by}. {WANTED}; with another the answers "
        f"are empty or garbled. {then}",
        code="checkpoint_misfit",
        name=str(folder),
    )
