"""Pictures as they come, opened alike everywhere: RGB, upright, 8 bit."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kovqa_core.errors import DataError

_TOO_LARGE_HINT = "reduce it, or leave it out of the index"


def open_image(path: Path, side: int | None = None) -> Image.Image:
    """A picture as RGB, upright.

    Alpha is dropped, palettes expanded, 16 bit brought to 8, EXIF orientation applied.

    Args:
        path: any format Pillow reads.
        side: the picture is needed no larger than about this many pixels a side: lets a JPEG be
            decoded at a fraction of its size. None: decode exactly.

    Raises:
        DataError: missing, no picture, cut off, or so large that it may be an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a line per picture would say nothing a user can act on
            image = Image.open(path)
            if side is not None:
                image.draft("RGB", (side, side))
            image.load()
            return ImageOps.exif_transpose(_to_eight_bit(image)).convert("RGB")
    except Image.DecompressionBombError:
        raise DataError(f"picture {path} has too many pixels to be opened safely", _TOO_LARGE_HINT) from None
    except FileNotFoundError:
        raise DataError(f"picture {path} is missing", "restore it, or write the index again") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        what = str(error).split(str(path))[0].strip(" '") or type(error).__name__
        raise DataError(
            f"picture {path} cannot be read ({what})", "fetch it again, or leave it out"
        ) from None


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit grey at 255 when it converts; scale it instead."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        full = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        grey = Image.fromarray((values.clip(0, full) * (255 / full)).round().astype(np.uint8))
        grey.info = image.info
        return grey
    return image
