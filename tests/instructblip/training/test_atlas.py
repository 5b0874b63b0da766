"""The atlas's maker: a style can be added without the other sets, and leaves the others alone."""

import json
from pathlib import Path

import pytest
from PIL import Image

from instructblip.training.atlas import TEST_STYLES, TILE, build

RED = '<rect width="36" height="36" fill="#f00"/>'


@pytest.fixture
def icons(tmp_path: Path) -> Path:
    """Packages that hold two icons each, of which one is a class of the world."""
    for package in ("noto-1.2", "twemoji-1", "emojione-1", "openmoji-1"):
        folder = tmp_path / "icons" / f"iconify-json-{package}" / "package"
        folder.mkdir(parents=True)
        held = {"height": 36, "width": 36, "icons": {"lion": {"body": RED}, "anvil": {"body": RED}}}
        (folder / "icons.json").write_text(json.dumps(held), "utf-8")
    return tmp_path / "icons"


def test_one_style_is_added_to_an_atlas(icons: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    out = tmp_path / "atlas"
    build(icons, out, only=["noto"])
    before = (out / "noto.webp").read_bytes()
    build(icons, out, only=["openmoji"])
    index = json.loads((out / "index.json").read_text("utf-8"))
    assert set(index["styles"]) == {"noto", "openmoji"}
    assert index["styles"]["openmoji"]["tiles"] == ["lion", "?"]
    assert index["styles"]["openmoji"]["licence"] == "CC-BY-SA-4.0"
    assert tuple(index["test_styles"]) == TEST_STYLES == ("emojione", "openmoji")
    assert (out / "noto.webp").read_bytes() == before
    with Image.open(out / "openmoji.webp") as sheet:
        red, green, _, alpha = sheet.convert("RGBA").getpixel((TILE // 2, TILE // 2))  # type: ignore[misc]
    assert red > 240 > 20 > green
    assert alpha == 255
