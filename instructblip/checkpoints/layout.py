"""A folder → its layout: transformers' (one folder), or LAVIS's (four things side by side)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from instructblip.checkpoints.hub import local_folder, snapshot_of
from instructblip.checkpoints.values import read_json
from instructblip.errors import CheckpointError

VICUNA, BERT, EVA, BLIP = "vicuna*/", "bert*/", "eva_vit*.pth", "instruct_blip*.pth"
# LAVIS's create_eva_vit_g fetches it from here by itself, so its users never saw the name.
EVA_ADDRESS = (
    "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth"
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where parts lie that are not in the folder, or cannot be told there by their names."""

    vicuna: Path | None = None
    bert: Path | None = None
    eva: Path | None = None
    instruct_blip: Path | None = None


@dataclass(frozen=True, slots=True)
class LavisFiles:
    """LAVIS's parts.

    ``eva`` may be absent where ``blip`` is a whole checkpoint; ``eva_absent`` is the sentence for
    where it is not. ``sizes`` is a config.json of ``folder`` with what the tensors cannot tell.
    """

    vicuna: Path
    bert: Path
    blip: Path
    eva: Path | None
    sizes: Path | None
    folder: Path
    eva_absent: str = ""


def named_places(
    vicuna: str | Path | None = None,
    bert: str | Path | None = None,
    eva: str | Path | None = None,
    instruct_blip: str | Path | None = None,
) -> Places:
    """The parts that are named by hand, as paths."""
    given = (vicuna, bert, eva, instruct_blip)
    return Places(*(Path(p).expanduser() if p else None for p in given))


def is_transformers(folder: Path) -> bool:
    """Whether the folder's config.json is a transformers model's, of any architecture."""
    path = folder / "config.json"
    marks = {"architectures", "model_type", "qformer_config"}
    return path.is_file() and bool(marks & read_json(path).keys())


def is_lavis(folder: Path, places: Places) -> bool:
    """Whether there is a trace of LAVIS's layout."""
    return places != Places() or any(
        _matching(folder, pattern) for pattern in (VICUNA, BERT, EVA, BLIP)
    )


def find_lavis(folder: Path, places: Places = Places()) -> LavisFiles:
    """LAVIS's parts in a folder, by their names' patterns, and in the caches of LAVIS and torch hub.

    Raises:
        CheckpointError: a part is absent, or several could be meant: they are named.
    """
    sizes = folder / "config.json"
    caches = cache_folders()
    return LavisFiles(
        vicuna=_folder(places.vicuna, "--vicuna") or snapshot_of(_vicuna(folder)),
        bert=_folder(places.bert, "--bert")
        or snapshot_of(_one(folder, BERT, "--bert", _bert_absent)),
        blip=_file(places.instruct_blip, "--instruct-blip")
        or _in_caches(folder, caches, BLIP, "--instruct-blip")
        or _one(folder, BLIP, "--instruct-blip", _blip_absent),
        eva=_file(places.eva, "--eva") or _in_caches(folder, caches, EVA, "--eva"),
        sizes=sizes if sizes.is_file() and not is_transformers(folder) else None,
        folder=folder,
        eva_absent=_eva_absent(folder, caches),
    )


def cache_folders() -> list[Path]:
    """Where torch hub and LAVIS keep what they fetched.

    Source: torch.hub.get_dir, and cache_root of lavis/configs/default.yaml.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
    return [
        torch_home / "hub" / "checkpoints",
        torch_home / "checkpoints",
        cache / "lavis",
        Path("/export/home/.cache/lavis"),
    ]


def _matching(folder: Path, pattern: str) -> list[Path]:
    """What a pattern names: folders where it ends with a slash, else files.

    A delta is not a language model, and a link beside its target is one candidate, not two.
    """
    wants_folder = pattern.endswith("/")
    try:
        found = sorted(folder.glob(pattern.rstrip("/")))
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error.strerror}). Check its permissions.", name=str(folder)
        ) from error
    fitting = [
        path for path in found
        if (path.is_dir() if wants_folder else path.is_file())
        and not (pattern == VICUNA and "delta" in path.name.lower())
    ]  # fmt: skip
    return list({path.resolve(): path for path in reversed(fitting)}.values())[::-1]


def _one(folder: Path, pattern: str, flag: str, absent: Callable[[Path], str]) -> Path:
    found = _sole(_matching(folder, pattern), pattern, flag)
    if found is None:
        raise CheckpointError(absent(folder), code="checkpoint_absent", name=pattern)
    return found


def _sole(found: list[Path], pattern: str, flag: str) -> Path | None:
    if len(found) > 1:
        raise CheckpointError(
            f"{len(found)} candidates for {pattern}: {', '.join(map(str, found))}. "
            f"Say which one with {flag}.",
            code="checkpoint_ambiguous",
            name=pattern,
        )
    return found[0] if found else None


def _in_caches(folder: Path, caches: Iterable[Path], pattern: str, flag: str) -> Path | None:
    for place in (folder, *caches):
        found = _sole(_matching(place, pattern), pattern, flag)
        if found is not None:
            return found
    return None


def _vicuna(folder: Path) -> Path:
    found = [path for path in _matching(folder, VICUNA) if _holds_llm(path)]
    sole = _sole(found or _matching(folder, VICUNA), VICUNA, "--vicuna")
    if sole is None:
        raise CheckpointError(_vicuna_absent(folder), code="checkpoint_absent", name=VICUNA)
    return sole


def _holds_llm(path: Path) -> bool:
    return (path / "config.json").is_file()


def _vicuna_absent(folder: Path) -> str:
    deltas = [p.name for p in sorted(folder.glob("*delta*")) if p.is_dir()]
    bases = [p.name for p in sorted(folder.glob("*llama*")) if p.is_dir()]
    if deltas:
        base = folder / (bases[0] if bases else "llama-7b")
        return (
            f"{folder} holds {', '.join(deltas)} but no merged Vicuna ({VICUNA}). Merge it first: "
            f"python -m instructblip vicuna --base-model-path {base} "
            f"--delta-path {folder / deltas[0]} --target-model-path {folder / 'vicuna-7b'}"
        )
    return (
        f"{folder} holds no {VICUNA}, the language model (Vicuna 7B or 13B, v1.1). "
        "Put it there, or say where it is with --vicuna."
    )


def _bert_absent(folder: Path) -> str:
    return (
        f"{folder} holds no {BERT}, the Q-Former's vocabulary (bert-base-uncased: vocab.txt and "
        "config.json; its weights are not needed). Put it there, or say where it is with --bert."
    )


def _blip_absent(folder: Path) -> str:
    return (
        f"{folder} holds no {BLIP}, the Q-Former's weights (instruct_blip_vicuna7b_trimmed.pth). "
        "Put it there, or say where it is with --instruct-blip."
    )


def _eva_absent(folder: Path, caches: Iterable[Path]) -> str:
    return (
        f"The ViT's weights, eva_vit_g.pth, are not there. LAVIS fetched them by itself when it "
        f"first ran; here nothing is fetched unasked. Looked in {folder} and in "
        f"{', '.join(map(str, caches))}. Fetch {EVA_ADDRESS} (2 GB) into {folder}, copy it from "
        "the machine on which LAVIS ran, or say where it is with --eva."
    )


def _folder(path: Path | None, flag: str) -> Path | None:
    return None if path is None else local_folder(path, flag)


def _file(path: Path | None, flag: str) -> Path | None:
    if path is None or path.is_file():
        return path
    if path.is_dir():
        found = sorted(f.name for f in path.glob("*.pth"))
        those = f": it holds {', '.join(found[:3])}" if found else ""
        raise CheckpointError(
            f"{flag} {path} is a folder. Give the file in it{those}.", code="checkpoint_kind",
            name=str(path),
        )  # fmt: skip
    raise CheckpointError(
        f"{flag} {path} is not a file. Check the path.", code="checkpoint_absent", name=str(path)
    )
