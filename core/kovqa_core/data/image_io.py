"""Images as they come, opened alike everywhere: RGB, upright, 8 bit."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kovqa_core.errors import DataError
from kovqa_core.messages import message


def open_image(path: Path, side: int | None = None) -> Image.Image:
    """An image as RGB, upright.

    Alpha is dropped, palettes are expanded, 16 bits become 8, EXIF orientation is applied.

    Args:
        path: any format Pillow reads.
        side: pixels a side that are enough: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, still no
            smaller than this, which saves most of the time. None: decode exactly.

    Raises:
        DataError: missing, not an image, truncated, or so large that it may be an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a line per image that no user can act on
            image = Image.open(path)
            # For a JPEG alone; other formats ignore it. The size it chooses is never below what is asked for.
            if side is not None:
                image.draft("RGB", (side, side))
            image.load()
            return ImageOps.exif_transpose(_to_eight_bit(image)).convert("RGB")
    except Image.DecompressionBombError:
        raise DataError(
            message(
                "data.image-too-large", "image {file} has too many pixels to be opened safely", file=path
            ),
            message("data.image-too-large.hint", "reduce it"),
        ) from None
    except FileNotFoundError:
        raise DataError(
            message("data.image-missing", "image {file} is missing", file=path),
            message("data.image-missing.hint", "restore it"),
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever their formats' code raises
        # Pillow puts the path into its text, and ours names it already.
        problem = str(error).split(str(path))[0].strip(" '") or type(error).__name__
        raise DataError(
            message(
                "data.image-unreadable", "image {file} cannot be read ({problem})", file=path, problem=problem
            ),
            message("data.image-unreadable.hint", "fetch it again"),
        ) from None


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Scale deep grey values to 0…255: Pillow's own conversion clips them at 255, so that all is white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        # Floats have no fixed white: 0…1 is the common use, else they are taken for 16-bit values.
        white = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        grey = Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))
        grey.info = image.info
        return grey
    return image
