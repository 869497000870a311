"""How much memory an image takes to be opened, counted by its header before a pixel is decoded.

A file of some hundred kB may hold 200 million pixels. What a pixel takes was measured for every format and mode
(Pillow 13.0); `tests/data/test_image_memory.py` measures some of them again.
"""

from __future__ import annotations

import os
import re

from PIL import BmpImagePlugin, IcoImagePlugin, Image, PngImagePlugin

from kovqa_core.data.image_source import ImageSource, open_source, source_name, source_size
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.messages import message

MEMORY_VARIABLE = "KOVQA_IMAGE_MEMORY"
DEFAULT_MEMORY = 1 << 30  # bytes: 134 million pixels of 8 bits, of which a camera of 100 megapixels has fewer
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Bytes a pixel: Pillow keeps 4 of a colour image, and the RGB image made of it has 4 as well.
_PIXEL_BYTES = 8
_DEEP_GREY_BYTES = 10  # 4, 1 scaled to 8 bits, 1 as an image, 4 as RGB
# Where a library hands over whole images of its own before Pillow makes one.
_LIBRARY_BYTES = {"WEBP": 16, "AVIF": 16, "HEIF": 16, "PPM": 12, "BMP": 12, "ICO": 16}
_DEEP_PPM_BYTES = 24  # decoded in Python
_READ_AS_A_WHOLE = ("WebP", "AVIF", "HEIC")  # Pillow holds such a file, and a copy of it, in memory
_COEFFICIENT_BYTES = (
    2  # of a JPEG whose scans hold parts of all pixels: libjpeg keeps a channel's, in full size
)
_WAVELET_BYTES = 5  # of a channel of a JPEG 2000 tile: 4 as an integer, 1 as it is handed over
_TILE_WIDTH, _TILE_LENGTH, _ROWS_PER_STRIP, _SAMPLES, _BITS = 322, 323, 278, 277, 258  # TIFF's tags


def image_memory_limit() -> int:
    """Bytes that one image may take: `KOVQA_IMAGE_MEMORY` (4G, 800M, a number), else 1 GiB.

    Raises:
        SettingsError: the variable is not a size.
    """
    text = os.environ.get(MEMORY_VARIABLE, "")
    return _parse_size(text) if text else DEFAULT_MEMORY


def _parse_size(text: str) -> int:
    size = re.fullmatch(r"\s*(\d{1,15})\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE | re.ASCII)
    if size is None or not int(size[1]):
        raise SettingsError(
            message("data.not-a-size", "{name}={value}: not a size", name=MEMORY_VARIABLE, value=text),
            message("data.not-a-size.hint", "write it like 2G or 800M"),
        )
    return int(size[1]) * _UNITS[size[2].upper()]


def allow_many_pixels() -> None:
    """Lift Pillow's own limit of 179 million pixels where the user has allowed more memory than usual."""
    if image_memory_limit() > DEFAULT_MEMORY:
        Image.MAX_IMAGE_PIXELS = None


def many_pixels_error(source: ImageSource, error: Image.DecompressionBombError) -> DataError:
    """The error for an image with more pixels than Pillow opens: it says how many in its text."""
    pixels = int(next(iter(re.findall(r"\d+", str(error))), 0))
    needed = _PIXEL_BYTES * pixels
    return DataError(
        message(
            "data.image-many-pixels",
            "image {file} is too large: {pixels:,} pixels take {needed:,} bytes of memory or more, and {setting} "
            "allows {limit:,}",
            file=source_name(source), pixels=pixels, needed=needed, limit=image_memory_limit(), setting=MEMORY_VARIABLE,
        ),
        _hint(needed),
    )  # fmt: skip


def require_file_memory(source: ImageSource, image_format: str) -> None:
    """Check that a file fits that is read as a whole before its size in pixels is known.

    Raises:
        DataError: it does not.
    """
    if image_format in _READ_AS_A_WHOLE:
        size = source_size(source)
        if 2 * size > image_memory_limit():
            raise DataError(
                message(
                    "data.image-file-too-large",
                    "image {file} is too large: {size:,} bytes, read as a whole, take more than the {limit:,} that "
                    "{setting} allows",
                    file=source_name(source), size=size, limit=image_memory_limit(), setting=MEMORY_VARIABLE,
                ),
                _hint(2 * size),
            )  # fmt: skip


def require_icon_memory(source: ImageSource) -> None:
    """Check that the icon of an ICO file fits that Pillow takes: it decodes it as soon as the file is opened.

    The file's own list has sides of at most 256; what lies there may be a PNG of any size.

    Raises:
        DataError: it does not.
    """
    with open_source(source) as stream:
        entry = IcoImagePlugin.IcoFile(stream).entry[0]
        stream.seek(entry.offset)
        is_png = stream.read(8) == b"\x89PNG\r\n\x1a\n"
        stream.seek(entry.offset)
        icon = PngImagePlugin.PngImageFile(stream) if is_png else BmpImagePlugin.DibImageFile(stream)
        _require(source, icon.size, _LIBRARY_BYTES["ICO"] * icon.width * icon.height)


def require_image_memory(source: ImageSource, image: Image.Image, coded_size: tuple[int, int]) -> None:
    """Check that an opened image fits before it is decoded.

    Args:
        source: for the error.
        image: opened, not loaded; `draft` may have made it smaller.
        coded_size: its size in the file.

    Raises:
        DataError: it does not.
    """
    _require(source, coded_size, _memory_needed(image, coded_size))


def _memory_needed(image: Image.Image, coded_size: tuple[int, int]) -> int:
    pixels, coded_pixels = image.width * image.height, coded_size[0] * coded_size[1]
    name, channels = image.format or "", len(image.getbands())
    converted = _PIXEL_BYTES
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        converted = _DEEP_GREY_BYTES
    decoded = 4 * pixels
    if name == "PPM" and image.mode == "I":
        decoded = _DEEP_PPM_BYTES * pixels
    elif name in _LIBRARY_BYTES:
        decoded = _LIBRARY_BYTES[name] * pixels
    elif name in ("JPEG", "MPO") and not _has_one_scan(image):
        decoded += _COEFFICIENT_BYTES * channels * coded_pixels
    elif name == "JPEG2000":
        decoded += _WAVELET_BYTES * channels * coded_pixels
    elif name == "TIFF":
        decoded += _tiff_buffer(image)
    return max(converted * pixels, decoded)


def _has_one_scan(image: Image.Image) -> bool:
    """Has the first scan of a JPEG, behind whose header Pillow stops, all of its channels to the last bit?"""
    stream, channels = getattr(image, "fp", None), getattr(image, "layers", 0)
    if image.info.get("progressive") or stream is None:
        return False
    place, header_bytes = stream.tell(), 6 + 2 * channels
    stream.seek(max(0, place - header_bytes))
    start = stream.read(3)
    stream.seek(place)
    return bool(start == bytes((0, header_bytes, channels)))


def _tiff_buffer(image: Image.Image) -> int:
    """Bytes of the largest tile or strip, which a header may declare larger than the image."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(_BITS, (8,))
    sample_bytes = max(4, tags.get(_SAMPLES, 1) * -(-max(bits if isinstance(bits, tuple) else (bits,)) // 8))
    if _TILE_WIDTH in tags:
        return int(tags[_TILE_WIDTH] * tags.get(_TILE_LENGTH, image.height) * sample_bytes)
    return int(image.width * min(image.height, tags.get(_ROWS_PER_STRIP, image.height)) * sample_bytes)


def _require(source: ImageSource, size: tuple[int, int], needed: int) -> None:
    limit = image_memory_limit()
    if needed > limit:
        raise DataError(
            message(
                "data.image-memory",
                "image {file} is too large: {width:,} x {height:,} = {pixels:,} pixels take {needed:,} bytes of "
                "memory, more than the {limit:,} that {setting} allows",
                file=source_name(source), width=size[0], height=size[1], pixels=size[0] * size[1], needed=needed,
                limit=limit, setting=MEMORY_VARIABLE,
            ),
            _hint(needed),
        )  # fmt: skip


def _hint(needed: int) -> str:
    return message(
        "data.image-memory.hint", "reduce it, or allow more: {setting}={gigabytes}G",
        setting=MEMORY_VARIABLE, gigabytes=-(-needed // (1 << 30)),
    )  # fmt: skip
