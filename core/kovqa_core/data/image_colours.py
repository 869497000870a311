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

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from PIL import Image, ImageCms

from kovqa_core.messages import message

_STRIP_PIXELS = 1 << 18
_WHITES = (1.0, 255.0, 4095.0, 65535.0)
_TWELVE_BIT_MAX = 15  # of 4095, what Pillow keeps: the upper byte of 16 bits
# Pillow spreads the values of 1, 2 and 4 bits over 0…255, but not the one that stands for "transparent".
_FEW_BITS = {"1": 255, "L;1": 255, "L;2": 85, "L;4": 17}


def to_rgb(image: Image.Image, raw_mode: str, *, as_stored: bool = False) -> Image.Image:
    """An image as RGB of 8 bits, made strip by strip where there are steps between.

    Args:
        image: decoded.
        raw_mode: how its pixels lie in the file, as Pillow calls it ("RGB;16B"); "" where nobody knows.
        as_stored: leave transparency out of account: what is behind it shows.

    Raises:
        ValueError: a mode that cannot be converted.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _scale_deep_grey(image, as_stored=as_stored)
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data and not as_stored:
        _spread_transparency(image, raw_mode)
        rgb = _in_strips(image, _over_white)
    else:
        rgb = image.convert("RGB")
    return _scale_deep_colour(rgb) if ";16" in raw_mode else rgb


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image converted to RGB a strip at a time: of an image of 100 megapixels, each copy takes 400 MB."""
    rgb = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        rgb.paste(convert(strip), (0, top))
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, strip) of an image, from top to bottom."""
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(image.height, top + rows)))


def _scale_deep_grey(image: Image.Image, *, as_stored: bool) -> Image.Image:
    largest = black = 0.0
    for _, strip in _strips(image):
        values = np.asarray(strip, np.float64)
        finite = values[np.isfinite(values)]
        largest, black = max(largest, float(finite.max(initial=0))), min(black, float(finite.min(initial=0)))
    white = next((each for each in _WHITES if each >= largest), largest)
    transparent = image.info.get("transparency")

    def scale(strip: Image.Image) -> Image.Image:
        values = np.nan_to_num(np.asarray(strip, np.float64), nan=black, posinf=white, neginf=black)
        # Without the halving, a difference of the two largest floats there are would be infinite.
        factor = 255 / (white / 2 - black / 2)
        scaled = ((values / 2 - black / 2) * factor).round().clip(0, 255).astype(np.uint8)
        if isinstance(transparent, int) and not as_stored:
            scaled[values == transparent] = 255
        return Image.fromarray(scaled).convert("RGB")

    return _in_strips(image, scale)


def _scale_deep_colour(image: Image.Image) -> Image.Image:
    """Colours of 12 bits in 16, of which Pillow has kept the upper byte, 0…15: scaled in place."""
    extrema = cast("tuple[tuple[int, int], ...]", image.getextrema())  # one pair a channel
    if max(high for _, high in extrema) > _TWELVE_BIT_MAX:
        return image
    table = [min(255, 17 * value) for value in range(256)] * 3
    for top, strip in _strips(image):
        image.paste(strip.point(table), (0, top))
    return image


def _spread_transparency(image: Image.Image, raw_mode: str) -> None:
    """Change the value that stands for "transparent" as Pillow has changed the pixels' values."""
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and raw_mode in _FEW_BITS:
        image.info["transparency"] = transparent * _FEW_BITS[raw_mode]
    elif isinstance(transparent, tuple) and ";16" in raw_mode:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied: there is no direct way
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    try:
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    except ImageCms.PyCMSError as error:  # a Pillow without LittleCMS raises ImportError: read as it comes
        raise ValueError(message("data.lab-unreadable", "LAB colours ({problem})", problem=error)) from None
    assert converted is not None
    return converted
