"""Changes of icons and pictures in training, against the fall on drawing styles never seen."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps


def touch_icon(rng: random.Random, tile: Image.Image) -> Image.Image:
    """An RGBA icon as another hand might have drawn it: colours, outline, shading, proportions."""
    alpha, colour = tile.getchannel("A"), tile.convert("RGB")
    if rng.random() < 0.6:
        colour = _tint(rng, colour)
    if rng.random() < 0.15:
        colour = ImageOps.posterize(colour, rng.choice((2, 3, 4)))
    if rng.random() < 0.15:
        colour = colour.filter(ImageFilter.ModeFilter(rng.choice((3, 5))))
    if rng.random() < 0.15:
        colour = colour.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.4)))
    if rng.random() < 0.3:
        colour, alpha = _outline(rng, colour, alpha)
    colour.putalpha(alpha)
    return _stretch(rng, colour) if rng.random() < 0.35 else colour


def touch_picture(rng: random.Random, image: Image.Image) -> Image.Image:
    """A whole picture as it may come from a screenshot or a chat: softer, darker, compressed."""
    draw = rng.random()
    if draw < 0.08:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if draw < 0.2:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=rng.randrange(35, 90))
        return Image.open(out).convert("RGB")
    if draw < 0.28:
        return ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.15))
    return image


def _tint(rng: random.Random, colour: Image.Image) -> Image.Image:
    colour = ImageEnhance.Color(colour).enhance(rng.uniform(0.3, 1.5))
    colour = ImageEnhance.Contrast(colour).enhance(rng.uniform(0.75, 1.3))
    gains = [rng.uniform(0.8, 1.2) for _ in range(3)]
    table = [min(255, int(v * gain)) for gain in gains for v in range(256)]
    return colour.point(table)


def _outline(
    rng: random.Random, colour: Image.Image, alpha: Image.Image
) -> tuple[Image.Image, Image.Image]:
    """A dark or white line around the icon, outside or inside of its border."""
    width = rng.choice((3, 5))
    ink = (255, 255, 255) if rng.random() < 0.3 else (rng.randrange(70),) * 3
    if rng.random() < 0.5:
        wide = alpha.filter(ImageFilter.MaxFilter(width))
        base = Image.new("RGB", colour.size, ink)
        base.paste(colour, (0, 0), alpha)
        return base, wide
    inner = alpha.filter(ImageFilter.MinFilter(width))
    rim = ImageChops.subtract(alpha, inner)
    colour.paste(ink, (0, 0), rim)
    return colour, alpha


def _stretch(rng: random.Random, tile: Image.Image) -> Image.Image:
    """Other proportions within the same square."""
    side = tile.width
    wide, high = (round(side * rng.uniform(0.8, 1.0)) for _ in range(2))
    out = Image.new("RGBA", tile.size)
    small = tile.resize((wide, high), Image.Resampling.BILINEAR)
    out.paste(small, ((side - wide) // 2, (side - high) // 2))
    return out
