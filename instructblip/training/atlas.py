"""Builds the icon atlas (``assets/atlas``) from openly licensed emoji sets.

The sets are unpacked npm packages of ``@iconify-json``; each holds ``icons.json`` with the SVG
body, width and height of every icon. Run by hand when the world changes:
``python -m instructblip.training atlas --icons FOLDER``. Needs the package ``resvg_py``.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

TILE = 72  # pixels; the biggest object of a 112-pixel scene is about 80

# kind -> {name: slugs of the icons that all count as this thing}
CLASSES: dict[str, dict[str, str]] = {
    "animal": {
        "cat": "cat cat-face", "dog": "dog dog-face", "horse": "horse horse-face",
        "cow": "cow cow-face", "pig": "pig pig-face", "mouse": "mouse mouse-face",
        "rabbit": "rabbit rabbit-face", "monkey": "monkey monkey-face", "lion": "lion",
        "elephant": "elephant", "penguin": "penguin", "frog": "frog", "snake": "snake",
        "turtle": "turtle", "fish": "fish tropical-fish", "whale": "spouting-whale whale",
        "octopus": "octopus", "butterfly": "butterfly", "bee": "honeybee",
        "ladybug": "lady-beetle", "owl": "owl", "duck": "duck", "crab": "crab",
        "panda": "panda",
    },
    "fruit": {
        "apple": "red-apple", "banana": "banana", "strawberry": "strawberry",
        "pineapple": "pineapple", "watermelon": "watermelon", "pear": "pear",
        "lemon": "lemon", "cherry": "cherries",
    },
    "vegetable": {
        "carrot": "carrot", "corn cob": "ear-of-corn", "chili pepper": "hot-pepper",
        "eggplant": "eggplant", "mushroom": "mushroom",
    },
    "food": {
        "pizza": "pizza", "hamburger": "hamburger", "doughnut": "doughnut",
        "cookie": "cookie", "ice cream": "soft-ice-cream", "birthday cake": "birthday-cake",
    },
    "vehicle": {
        "car": "automobile oncoming-automobile", "bus": "bus oncoming-bus",
        "bicycle": "bicycle", "airplane": "airplane", "rocket": "rocket",
        "sailboat": "sailboat", "tractor": "tractor", "helicopter": "helicopter",
        "fire engine": "fire-engine",
    },
    "plant": {
        "tree": "deciduous-tree", "palm tree": "palm-tree", "cactus": "cactus",
        "tulip": "tulip", "sunflower": "sunflower", "rose": "rose",
    },
    "household thing": {
        "umbrella": "umbrella umbrella-with-rain-drops", "bell": "bell", "key": "key",
        "clock": "alarm-clock", "book": "open-book", "light bulb": "light-bulb",
        "hammer": "hammer", "scissors": "scissors", "camera": "camera camera-with-flash",
    },
    "instrument": {
        "guitar": "guitar", "violin": "violin", "trumpet": "trumpet", "drum": "drum",
    },
    "clothing": {
        "shoe": "running-shoe", "hat": "top-hat", "dress": "dress", "T-shirt": "t-shirt",
        "glasses": "glasses",
    },
}  # fmt: skip

# style -> (package prefix, licence, credit)
STYLES: dict[str, tuple[str, str, str]] = {
    "noto": ("iconify-json-noto-1.2", "Apache-2.0", "Noto Emoji, Google"),
    "noto-v1": ("iconify-json-noto-v1", "Apache-2.0", "Noto Emoji v1, Google"),
    "twemoji": ("iconify-json-twemoji", "CC-BY-4.0", "Twemoji, Twitter and contributors"),
    "fluent-flat": (
        "iconify-json-fluent-emoji-flat", "MIT", "Fluent Emoji Flat, Microsoft"),
    "fluent": ("iconify-json-fluent-emoji-1", "MIT", "Fluent Emoji, Microsoft"),
    "emojione": (
        "iconify-json-emojione", "CC-BY-4.0", "EmojiOne 2, Ranks.com (emojione.com)"),
    "openmoji": ("iconify-json-openmoji", "CC-BY-SA-4.0", "OpenMoji, HfG Schwäbisch Gmünd"),
}  # fmt: skip
# Never trained on; openmoji, drawn with lines, is the hard one, and its licence is share-alike.
TEST_STYLES = ("emojione", "openmoji")

# Drawings whose name the model is not taught; near twins of the classes are left out.
_NOT_UNKNOWN = [
    "face",
    "flag",
    "hand",
    "person",
    "man",
    "woman",
    "boy",
    "girl",
    "family",
    "skin",
    "keycap",
    "button",
    "arrow",
    "clock",
    "circle",
    "square",
    "heart",
    "star",
    "moon",
    "diamond",
    "triangle",
    "cross",
    "letter",
    "sign",
    "symbol",
    "input",
    "medal",
    "shirt",
    "hat",
    "shoe",
    "sandal",
    "boot",
    "music",
    "note",
    "key",
    "lock",
    "book",
    "tree",
    "plant",
    "flower",
    "car",
    "bus",
    "train",
    "truck",
    "boat",
    "ship",
    "cat",
    "dog",
    "bear",
    "bird",
    "leaf",
    "camera",
    "video",
    "light",
    "fruit",
    "cake",
    "ice",
    "ball",
    "square-four",
    "black",
    "white",
    "red",
    "large",
    "small",
    "curly-loop",
    "mark",
    "couple",
    "kiss",
    "people",
    "baby",
    "child",
    "adult",
    "prince",
    "mage",
    "fairy",
    "vampire",
    "zombie",
    "elf",
    "genie",
    "superhero",
    "supervillain",
    "detective",
    "guard",
    "worker",
    "student",
    "teacher",
]


def find_icons(folder: Path, prefix: str) -> dict[str, Any]:
    """The parsed ``icons.json`` of the package whose folder name starts with ``prefix``."""
    package = next(p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.startswith(prefix))
    loaded: dict[str, Any] = json.loads((package / "package" / "icons.json").read_text("utf-8"))
    return loaded


def render(icons: dict[str, Any], slug: str, size: int = TILE) -> Image.Image | None:
    """One icon as RGBA, ``size`` pixels square; ``None`` where the set does not have it."""
    import resvg_py

    slug = icons.get("aliases", {}).get(slug, {}).get("parent", slug)
    icon = icons["icons"].get(slug)
    if icon is None:
        return None
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return picture.resize((size, size)) if picture.size != (size, size) else picture


def unknown_slugs(sets: list[dict[str, Any]], count: int, seed: int = 5) -> list[str]:
    """``count`` slugs that all ``sets`` have and that are unlike every class."""
    used = {s for group in CLASSES.values() for slugs in group.values() for s in slugs.split()}
    words = {w for group in CLASSES.values() for name in group for w in name.lower().split()}
    common = set.intersection(*(set(s["icons"]) for s in sets))
    good = [
        slug
        for slug in sorted(common - used)
        if not any(p in _NOT_UNKNOWN or p in words for p in slug.split("-"))
    ]
    random.Random(seed).shuffle(good)
    return good[:count]


def build(icons: Path, out: Path, unknown: int = 120, only: Sequence[str] = ()) -> None:
    """Write one WebP sheet a style and ``index.json`` into ``out``.

    ``only``: the styles to draw; the others keep the sheets and entries that ``out`` has.
    """
    out.mkdir(parents=True, exist_ok=True)
    needed = {"noto", "twemoji", "emojione", *(only or STYLES)}
    sets = {s: find_icons(icons, prefix) for s, (prefix, _, _) in STYLES.items() if s in needed}
    strange = unknown_slugs([sets["noto"], sets["twemoji"], sets["emojione"]], unknown)
    path = out / "index.json"
    kept = json.loads(path.read_text("utf-8"))["styles"] if only and path.exists() else {}
    index: dict[str, Any] = {
        "tile": TILE,
        "classes": {name: kind for kind, group in CLASSES.items() for name in group},
        "test_styles": TEST_STYLES,
        "styles": kept,
    }
    for style in only or STYLES:
        # two styles of unknown drawings train, the test styles' own are for the test
        more = strange if style in ("noto", "twemoji", *TEST_STYLES) else []
        names, sheet = _sheet(style, sets[style], more)
        sheet.save(out / f"{style}.webp", quality=82, method=6, alpha_quality=70)
        index["styles"][style] = {
            "licence": STYLES[style][1], "credit": STYLES[style][2], "tiles": names,
        }  # fmt: skip
    path.write_text(json.dumps(index, indent=None, separators=(",", ":")), "utf-8")


def _sheet(style: str, loaded: dict[str, Any], strange: list[str]) -> tuple[list[str], Image.Image]:
    """The names of a style's tiles, "?" for unknown things, and the sheet that holds them."""
    wanted = [(name, s) for g in CLASSES.values() for name, ss in g.items() for s in ss.split()]
    wanted += [("?", slug) for slug in strange]
    tiles = [(n, p) for n, s in wanted if (p := render(loaded, s)) is not None]
    missing = {n for n, _ in wanted} - {n for n, _ in tiles}
    if missing:
        print(f"{style}: no icon for {sorted(missing)}")
    columns = 16
    sheet = Image.new("RGBA", (columns * TILE, -(-len(tiles) // columns) * TILE))
    for i, (_, picture) in enumerate(tiles):
        sheet.paste(picture, (i % columns * TILE, i // columns * TILE))
    return [n for n, _ in tiles], sheet
