"""Images as programs have them: files, bytes, Pillow's images, numpy's arrays."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from kovqa_core.data.image_source import ImageSource
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.messages import message

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

# A path, a whole file's bytes, an image of Pillow, or an array of uint8: [H, W], [H, W, 3] or [H, W, 4].
ImageInput: TypeAlias = Union[str, Path, bytes, bytearray, "Image.Image", "np.ndarray[Any, Any]"]

# What a PNG holds to the bit; a TIFF holds the rest.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("CMYK", "YCbCr", "LAB", "F", "I", "I;16B", "I;16L")


def to_image_source(image: ImageInput) -> ImageSource:
    """An image as a path or as the bytes of a file that holds its very pixels.

    Args:
        image: an image of Pillow is read as its file would be: transparency lies over white, and it is turned as its
            EXIF says.

    Raises:
        SettingsError: it is of another type, or an array of another shape.
        DataError: its path or its pixels cannot be read.
    """
    if isinstance(image, str) and re.match(r"(https?|ftp|file|data):", image, re.IGNORECASE):
        raise SettingsError(
            message("api.image-address", "an image is the address {address}", address=image[:200]),
            message(
                "api.image-address.hint", "nothing is fetched here: give a path, or the bytes of the file"
            ),
        )
    if isinstance(image, str | Path):
        if "\0" in str(image):
            raise DataError(
                message("api.no-such-path", "an image's path holds a NUL: {path!r}", path=str(image))
            )
        return expand_user(Path(image))
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    # Without importing either library: who has such an object has imported it.
    numpy, pillow = sys.modules.get("numpy"), sys.modules.get("PIL.Image")
    if numpy is not None and isinstance(image, numpy.ndarray):
        return _encode_image(_image_of_array(image))
    if pillow is not None and isinstance(image, pillow.Image):
        return _encode_image(image)
    raise SettingsError(
        message("api.not-an-image", "an image is a {type}", type=type(image).__name__),
        message(
            "api.not-an-image.hint",
            "give a path, a file's bytes, an image of Pillow, or a numpy array of uint8",
        ),
    )


def expand_user(path: Path) -> Path:
    """A path with ~ at its beginning as the user's folder; a file called ~someone where nobody is called so."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _image_of_array(array: np.ndarray[Any, Any]) -> Image.Image:
    from PIL import Image

    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != "uint8" or not is_image or not array.size:
        raise SettingsError(
            message(
                "api.not-an-image-array", "an array of {dtype} {shape}", dtype=array.dtype, shape=list(array.shape)
            ),
            message(
                "api.not-an-image-array.hint",
                "an image is uint8 of [height, width, 3] (red, green, blue), [height, width, 4] or [height, width]",
            ),
        )  # fmt: skip
    return Image.fromarray(array)


def _encode_image(image: Image.Image) -> bytes:
    """A file of its pixels, not compressed: nobody keeps it.

    Raises:
        SettingsError: it has no pixels.
        DataError: they cannot be read: Pillow opens a file's pixels only when they are needed.
    """
    if not image.width * image.height:
        raise SettingsError(message("api.empty-image", "an image of {width} x {height} pixels",
                                    width=image.width, height=image.height))  # fmt: skip
    stream = io.BytesIO()
    try:
        if image.mode in _TIFF_MODES:
            image.save(stream, "TIFF", compression="raw", exif=image.getexif())
        else:
            plain = image if image.mode in _PNG_MODES else image.convert("RGBA")
            plain.save(stream, "PNG", compress_level=0, exif=image.getexif())
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            message("api.image-unreadable", "the image cannot be read ({problem})", problem=error),
            message(
                "api.image-unreadable.hint",
                "give its path: kovqa reads some damaged files, and names the others",
            ),
        ) from None
    return stream.getvalue()
