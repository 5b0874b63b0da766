"""Pictures of all formats with bytes changed at random, read as the page and ``infer`` read them.

``python -m tests.mutated_pictures --count 20000``: nothing but PictureError may come out; where only
metadata was changed, the picture is read, and its pixels are as before. Each picture is made from
its number alone. They are read in processes of their own, so that one that kills its reader is told.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, PngImagePlugin

from instructblip.errors import PictureError
from instructblip.images import open_as_lavis, open_upright, prepare
from instructblip.imaging import icc
from tests.exif_bytes import exif
from tests.heif_file import heic
from tests.png_file import key, png

MOST = 1_000_000  # pixels: a changed size may say anything
_AT_ONCE = 1000  # pictures of one process
_EXIF = exif(6, (282, 5, 1, b"\0\0\0\x48\0\0\0\1" * 3), "exif") + b"a maker's notes" * 9
_PLAIN = exif(
    None, (282, 5, 1, b"\0\0\0\x48\0\0\0\1" * 3), "exif"
)  # as Pillow leaves it in an AVIF
_XMP = b'<x:xmpmeta><rdf:Description dc:title="a picture" tiff:Make="a maker"/></x:xmpmeta>'
_WORDS = b"a comment of some length, by nobody in particular"


@dataclass(frozen=True)
class Seed:
    """A sound file; ``metadata``: parts of it that hold nothing but metadata."""

    name: str
    data: bytes
    metadata: tuple[bytes, ...] = ()


def _image(mode: str = "RGB") -> Image.Image:
    image = Image.linear_gradient("L").resize((48, 36)).convert("RGB")
    image.paste((200, 30, 60), (4, 4, 20, 20))
    return image.convert(mode)


def _file(kind: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    _image(mode).save(out, kind, **options)
    return out.getvalue()


@cache
def seeds() -> tuple[Seed, ...]:
    """All formats, most of them with all the metadata that they can hold."""
    profile = icc.from_code(12, 13) or b""
    whole = {"exif": b"Exif\0\0" + _EXIF, "icc_profile": profile, "xmp": _XMP}
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", _WORDS.decode())
    texts.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    metadata = (_EXIF, _XMP)
    found = [
        Seed("jpeg", _file("JPEG", comment=_WORDS, **whole), (*metadata, _WORDS)),
        Seed("progressive", _file("JPEG", progressive=True, **whole), metadata),
        Seed("cmyk", _file("JPEG", "CMYK", **whole), metadata),
        Seed("png", _file("PNG", pnginfo=texts, **whole), (*metadata, _WORDS)),
        Seed("palette", _file("PNG", "P", **whole), (_EXIF,)),
        Seed("deep", png([[[v * 200] for v in range(40)]] * 9, 0, 16, key(400))),
        Seed("webp", _file("WEBP", **whole), metadata),
        Seed("lossless", _file("WEBP", "RGBA", lossless=True, **whole), metadata),
        Seed("gif", _file("GIF", "P", comment=_WORDS, save_all=True, append_images=[_image("P")])),
        Seed("bmp", _file("BMP")),
        Seed("tiff", _file("TIFF")),
        Seed("tiff_lzw", _file("TIFF", "RGBA", compression="tiff_lzw")),
        Seed("tiff_jpeg", _file("TIFF", compression="jpeg")),
        Seed("tiff_float", _file("TIFF", "F")),
        Seed("avif", _file("AVIF", **whole | {"exif": b"Exif\0\0" + _PLAIN}), (_PLAIN, _XMP)),
        Seed("heic", heic(exif=_EXIF, turn=1), (_EXIF,)),
        Seed("heic_profile", heic(colours=b"prof" + profile)),
    ]
    held = [part for seed in found for part in seed.metadata if part not in seed.data]
    assert not held, held
    return tuple(found)


def _change(rng: random.Random, data: bytes) -> bytes:
    """One change of bytes, of the kinds that break parsers."""
    at, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 16, 200))
    how = rng.randrange(7)
    if how == 0:
        return data[:at] + bytes(rng.randrange(256) for _ in range(length)) + data[at + length :]
    if how == 1:
        return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
    if how == 2:
        number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
        size = rng.choice((1, 2, 4))
        order = rng.choice(("big", "little"))
        word = (number & (1 << 8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]
        return data[:at] + word + data[at + size :]
    if how == 3:
        return data[:at] + data[at + length :]
    if how == 4:
        return data[:at] + data[at : at + length] * 2 + data[at + length :]
    if how == 5:
        return data[: max(at, 1)]
    return data[:at] + bytes(length) + data[at:]


def changed(number: int, seed: int) -> tuple[Seed, bytes, bool]:
    """The picture of a number: from which it is made, its bytes, whether only metadata differs."""
    rng = random.Random(f"{seed} {number}")
    source = rng.choice(seeds())
    if source.metadata and rng.random() < 0.3:
        part = rng.choice(source.metadata)
        new = bytearray(part)
        for _ in range(rng.randint(1, 12)):
            new[rng.randrange(len(new))] = rng.choice((0, 1, 0xFF, rng.randrange(256)))
        return source, source.data.replace(part, bytes(new)), True
    data = source.data
    for _ in range(rng.randint(1, 4)):
        data = _change(rng, data) or data
    return source, data, False


def outcome(number: int, seed: int, folder: Path) -> str:
    """What became of a picture: ``read``, an error's code, or in capitals what should not be."""
    source, data, metadata_only = changed(number, seed)
    try:
        kept = prepare(data, max_pixels=MOST)
        seen = _as_lavis(data, folder)
        open_upright(kept.data)
        open_upright(data)
    except PictureError as error:
        return f"REFUSED {source.name}: {error}" if metadata_only else error.code
    except Exception as error:
        return f"WRONG {source.name}: {error!r}"
    if metadata_only and seen != _as_lavis(source.data, folder):
        return f"DIFFERS {source.name}"
    return "metadata changed, read" if metadata_only else "read"


def _as_lavis(data: bytes, folder: Path) -> bytes:
    path = folder / "picture"
    path.write_bytes(data)
    return open_as_lavis(path, lambda code: None).tobytes()


def run_here(first: int, count: int, seed: int) -> Counter[str]:
    """Outcomes of ``count`` pictures; each bad one by itself, with its number."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            became = outcome(number, seed, Path(folder))
            found[became if is_good({became: 1}) else f"{became} (number {number})"] += 1
    return found


def run(first: int, count: int, seed: int) -> Counter[str]:
    """The same in processes of their own; one that is killed counts as ``CRASHED``."""
    found: Counter[str] = Counter()
    for start in range(first, first + count, _AT_ONCE):
        many = min(_AT_ONCE, first + count - start)
        command = [sys.executable, "-m", "tests.mutated_pictures", "--here", "--seed", str(seed)]
        done = subprocess.run(
            [*command, "--first", str(start), "--count", str(many)],
            capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False,
        )  # fmt: skip
        if done.returncode:
            found[f"CRASHED with {done.returncode}, from number {start}: {done.stderr[-999:]}"] += 1
        else:
            found.update(json.loads(done.stdout))
    return found


def is_good(found: Mapping[str, int]) -> bool:
    """Whether nothing came out that should not, which is told in capitals."""
    return bool(found) and not any(name[:2].isupper() for name in found)


def main(arguments: list[str] | None = None) -> int:
    """Print how many pictures came to what; 1 where something came out that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    args = parser.parse_args(arguments)
    if args.here:
        print(json.dumps(run_here(args.first, args.count, args.seed)))
        return 0
    found = run(args.first, args.count, args.seed)
    for name, count in found.most_common():
        print(f"{count:7} {name}")
    return 0 if is_good(found) else 1


if __name__ == "__main__":
    sys.exit(main())
