"""A small real picture, made without torch."""

import io

from PIL import Image


def picture(
    colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30)
) -> bytes:
    """PNG bytes with some structure, so that features differ between pictures."""
    image = Image.new("RGB", size, colour)
    image.paste((255 - colour[0], 99, 12), (5, 5, size[0] // 2, size[1] // 2))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
