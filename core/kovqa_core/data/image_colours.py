"""Pixels of every mode -> RGB of 8 bits, by one rule that looks at nothing but the image itself.

* Transparency is laid over white (unless the image is read as stored).
* Deep grey (16 or 32 bits, signed or not, floats) is scaled. White is the first of 1, 255, 4095 and 65535 that is not
  below the largest value, and beyond 65535 the largest value itself; black is 0, or the smallest value if that is
  negative. So 0…1, 8, 12 and 16 bits all become visible, whatever they are stored in. NaN is black; infinite values are
  black or white.
* Deep colour (16 bits a channel, of which Pillow keeps the upper 8): likewise, 12 bits are scaled to full range.
* LAB is converted by its profile; CMYK, YCbCr, HSV and palettes as Pillow converts them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

from kovqa_core.messages import message

_WHITES = (1.0, 255.0, 4095.0, 65535.0)
_TWELVE_BIT_MAX = 15  # of 4095, what Pillow keeps: the upper byte of 16 bits
# Pillow spreads the values of 1, 2 and 4 bits over 0…255, but not the one that stands for "transparent".
_FEW_BITS = {"1": 255, "L;1": 255, "L;2": 85, "L;4": 17}


def to_rgb(image: Image.Image, raw_mode: str, *, as_stored: bool = False) -> Image.Image:
    """An image as RGB of 8 bits.

    Args:
        image: decoded.
        raw_mode: how its pixels lie in the file, as Pillow calls it ("RGB;16B"); "" where nobody knows.
        as_stored: leave transparency out of account: what is behind it shows.

    Raises:
        ValueError: a mode that cannot be converted.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _scale_deep_grey(image, as_stored=as_stored).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data and not as_stored:
        image = _over_white(image, raw_mode)
    return _scale_deep_colour(image.convert("RGB")) if ";16" in raw_mode else image.convert("RGB")


def _scale_deep_grey(image: Image.Image, *, as_stored: bool) -> Image.Image:
    values = np.asarray(image, np.float64)
    finite = values[np.isfinite(values)]
    largest, black = float(finite.max(initial=0)), float(finite.min(initial=0))
    white = next((each for each in _WHITES if each >= largest), largest)
    values = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
    # Without the halving, a difference of the two largest floats there are would be infinite.
    scaled = (
        ((values / 2 - black / 2) * (255 / (white / 2 - black / 2))).round().clip(0, 255).astype(np.uint8)
    )
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and not as_stored:
        scaled[values == transparent] = 255
    return Image.fromarray(scaled)


def _scale_deep_colour(image: Image.Image) -> Image.Image:
    """Colours of 12 bits in 16, of which Pillow has kept the upper byte: 0…15."""
    largest = np.asarray(image).max(initial=0)
    return (
        image.point([min(255, 17 * value) for value in range(256)] * 3)
        if largest <= _TWELVE_BIT_MAX
        else image
    )


def _over_white(image: Image.Image, raw_mode: str) -> Image.Image:
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and raw_mode in _FEW_BITS:
        image.info["transparency"] = transparent * _FEW_BITS[raw_mode]
    elif isinstance(transparent, tuple) and ";16" in raw_mode:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode == "La":  # premultiplied: there is no direct way
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    try:
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    except ImageCms.PyCMSError as error:  # a Pillow without LittleCMS raises ImportError: read as it comes
        raise ValueError(message("data.lab-unreadable", "LAB colours ({problem})", problem=error)) from None
    assert converted is not None
    return converted
