"""Colours as a file describes them → an ICC profile, and pictures with one → sRGB.

Sources: ICC.1:2022 (profiles); ITU-T H.273 (codes of primaries and curves); ITU-R BT.2100 (PQ and
HLG) and BT.2408 (its white); Lam 1985, ICC.1 annex E (Bradford's matrix).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from PIL import Image, ImageCms

_D65 = (0.3127, 0.3290)
# White, red, green, blue as x and y, by H.273's code. What is not here counts as sRGB.
_PRIMARIES: dict[int, tuple[float, ...]] = {
    1: (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),  # BT.709, sRGB
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI-P3
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # H.273's transfer characteristics that are powers
_PQ, _HLG = 16, 18
_WHITE = 203  # cd/m², what BT.2408 calls white in a picture of high range
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
_ALIKE = 2  # levels of 255 by which a profile may differ from sRGB and count as it
_FITS = {b"RGB ": ("RGB", "L"), b"GRAY": ("L", "I;16"), b"CMYK": ("CMYK",), b"Lab ": ("LAB",)}
Matrix = Sequence[Sequence[float]]


# --- profiles --------------------------------------------------------------------------------------


def from_code(primaries: int, transfer: int, *, grey: bool = False) -> bytes | None:
    """The ICC profile of H.273's codes (PNG's cICP, HEIF's nclx); None for sRGB and the unknown."""
    points = _PRIMARIES.get(primaries, _PRIMARIES[1])
    if transfer in _GAMMAS:
        curve = _gamma_curve(_GAMMAS[transfer])
    elif transfer in (_PQ, _HLG):
        curve = _table(_pq if transfer == _PQ else _hlg)
    elif points == _PRIMARIES[1]:
        return None
    else:
        curve = _parametric(3, _SRGB_CURVE)
    return _profile(points, curve, grey)


def from_gamma(
    gamma: float, points: Sequence[float] | None = None, *, grey: bool = False
) -> bytes | None:
    """The ICC profile of PNG's gAMA and cHRM; None for sRGB or nearly so, and where it is no sense.

    Args:
        gamma: value = light ** gamma.
        points: white, red, green, blue as x and y.
    """
    if not 0.05 <= gamma <= 5:
        return None
    usual = _PRIMARIES[1]
    if points is None or all(abs(a - b) < 0.005 for a, b in zip(points, usual, strict=True)):
        points = usual
    if points is usual and abs(gamma * 2.2 - 1) < 0.05:  # as libpng compares gammas
        return None
    try:
        return _profile(points, _gamma_curve(1 / gamma), grey)
    except (ZeroDivisionError, struct.error):  # no primaries at all
        return None


def _profile(points: Sequence[float], curve: bytes, grey: bool) -> bytes:
    """A display profile, version 4.3, of primaries and one curve."""
    tags = {b"wtpt": _xyz(_D50), b"kTRC" if grey else b"rTRC": curve}
    if not grey:
        columns = _to_d50(points)
        tags |= {b"gTRC": curve, b"bTRC": curve}
        tags |= {n: _xyz(c) for n, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    table, body, at = struct.pack(">L", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sLL", name, at + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    space = b"GRAY" if grey else b"RGB "
    head = struct.pack(">L4sL4s4s4s", at + len(body), b"", 0x04300000, b"mntr", space, b"XYZ ")
    head += (
        b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3l", *(round(v * 65536) for v in _D50))
    )
    return head.ljust(128, b"\0") + table + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3l", *(round(v * 65536) for v in values))


def _parametric(kind: int, values: Sequence[float]) -> bytes:
    numbers = (round(v * 65536) for v in values)
    return b"para\0\0\0\0" + struct.pack(f">HH{len(values)}l", kind, 0, *numbers)


def _gamma_curve(power: float) -> bytes:
    return _parametric(0, (power,))


def _table(light: Callable[[float], float], steps: int = 1024) -> bytes:
    values = (round(65535 * min(light(n / (steps - 1)), 1.0)) for n in range(steps))
    return b"curv\0\0\0\0" + struct.pack(f">L{steps}H", steps, *values)


def _pq(value: float) -> float:
    """BT.2100's perceptual quantiser: value → light, 1 where white is."""
    power = value ** (32 / 2523)
    light = max(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
    return float(10_000 * light ** (16384 / 2610) / _WHITE)


def _hlg(value: float) -> float:
    """BT.2100's hybrid log-gamma with its system gamma of 1.2; white is at 0.75 (BT.2408)."""

    def scene(v: float) -> float:
        return (
            v * v / 3
            if v <= 0.5
            else (2.718281828 ** ((v - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )

    return float((scene(value) / scene(0.75)) ** 1.2)


def _to_d50(points: Sequence[float]) -> list[list[float]]:
    """The XYZ of red, green and blue at full, adapted to D50."""
    white, *primaries = (_xyz_of(x, y) for x, y in zip(points[::2], points[1::2], strict=True))
    shares = _times(_inverse(_turned(primaries)), white)
    seen, wanted = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    back = _inverse(_BRADFORD)
    out = []
    for primary, share in zip(primaries, shares, strict=True):
        cone = _times(_BRADFORD, [share * v for v in primary])
        out.append(_times(back, [c * w / s for c, w, s in zip(cone, wanted, seen, strict=True)]))
    return out


def _xyz_of(x: float, y: float) -> list[float]:
    return [x / y, 1.0, (1 - x - y) / y]


def _turned(rows: Matrix) -> Matrix:
    return list(zip(*rows, strict=True))


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def _inverse(m: Matrix) -> Matrix:
    """Of a 3 × 3 matrix, by cofactors. ZeroDivisionError where it has none."""
    rows = [
        [m[(j + 1) % 3][(i + 1) % 3] * m[(j + 2) % 3][(i + 2) % 3]
         - m[(j + 1) % 3][(i + 2) % 3] * m[(j + 2) % 3][(i + 1) % 3] for j in range(3)]
        for i in range(3)
    ]  # fmt: skip
    whole = sum(m[0][i] * rows[i][0] for i in range(3))
    return [[value / whole for value in row] for row in rows]


# --- pictures --------------------------------------------------------------------------------------


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in mode RGB, its colours sRGB's; a profile that cannot be used counts for nothing.

    Args:
        picture: of mode L, I;16, RGB, CMYK, LAB or another that Pillow converts by itself.
        profile: the ICC profile of its colours; None for sRGB.
    """
    if profile and picture.mode in (modes := _FITS.get(profile[16:20], ())):
        if modes[0] == "RGB":
            picture = picture.convert("RGB")
        with_profile = _converted(picture, profile)
        if with_profile is not None:
            return with_profile
    return picture.convert("RGB")


def differs(picture: Image.Image, profile: bytes | None) -> bool:
    """Whether a profile means other colours than sRGB for a picture of this mode."""
    if not profile or picture.mode not in _FITS.get(profile[16:20], ()):
        return False
    return not _like_srgb(profile)


def _converted(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """None where the profile cannot be used, or changes nothing."""
    deep = picture.mode == "I;16"  # which Pillow would clip
    return None if not deep and _like_srgb(profile) else _through(picture, profile)


def _through(picture: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        return ImageCms.applyTransform(picture, _transform(profile, picture.mode))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB",
        ImageCms.Intent.PERCEPTUAL, ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip


@lru_cache(maxsize=4)
def _like_srgb(profile: bytes) -> bool:
    """Whether colours change by no more than rounding; such pictures stay as they are, to the bit."""
    steps = range(0, 256, 51)
    ramp = bytes(v for v in range(256) for _ in "rgb")
    colours = bytes(v for r in steps for g in steps for b in steps for v in (r, g, b)) + ramp
    if profile[16:20] == b"GRAY":
        sample, wanted = Image.frombytes("L", (256, 1), bytes(range(256))), ramp
    elif profile[16:20] == b"RGB ":
        sample, wanted = Image.frombytes("RGB", (len(colours) // 3, 1), colours), colours
    else:
        return False
    seen = _through(sample, profile)
    if seen is None:
        return True  # it cannot be used
    return max(abs(a - b) for a, b in zip(seen.tobytes(), wanted, strict=True)) <= _ALIKE
