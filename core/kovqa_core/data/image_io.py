"""Images as they come, opened alike everywhere: RGB, upright, 8 bit.

Of an animation or a file of several pages, the first is read. What is transparent, deep or of other colours becomes
RGB by the rule of `image_colours.py`; what is damaged beside its pixels is read by that of `image_repair.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from kovqa_core.data.file_kind import FileKind, find_file_kind
from kovqa_core.data.image_colours import to_rgb
from kovqa_core.data.image_repair import is_unfilled_jpeg, repair_image
from kovqa_core.errors import DataError
from kovqa_core.messages import Message, message

# Pillow logs what it finds in damaged files; without a handler, Python prints such lines among ours.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_MAX_REPAIRED_BYTES = 256 << 20  # a larger file is not read into memory to be mended
_EXIF_ORIENTATION = 0x0112
# Where the row that is stored first, and its first column, belong; 1 is upright, and so are values that nobody defines.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Packages that teach Pillow another format: (module, its function that does so; "": importing is enough).
_PLUGINS = (("pillow_heif", "register_heif_opener"), ("pillow_jxl", ""), ("pillow_avif", ""))


@dataclass(frozen=True)
class OpenedImage:
    """An image, and whether its file can be handed on as it is.

    Attributes:
        pixels: RGB, upright, 8 bit.
        plain_format: JPEG or PNG where every reader sees these very pixels in the file: it is upright, opaque, of
            8 bits and undamaged; else None.
    """

    pixels: Image.Image
    plain_format: str | None


def open_image(path: Path, side: int | None = None, *, as_stored: bool = False) -> Image.Image:
    """An image as RGB, upright, over white where it is transparent.

    Args:
        path: any format Pillow reads, by itself or by an installed plug-in (pillow-heif, pillow-jxl-plugin).
        side: pixels a side that are enough: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, still no
            smaller than this, which saves most of the time. None: decode exactly.
        as_stored: as BEiT-3's and LLaVA's originals read it: EXIF orientation and transparency are ignored.

    Raises:
        DataError: missing, not an image, truncated, or so large that it may be an attack.
    """
    return read_image(path, side, as_stored=as_stored).pixels


def read_image(path: Path, side: int | None = None, *, as_stored: bool = False) -> OpenedImage:
    """An image, and whether its file can be handed on; as `open_image`."""
    try:
        # Before Pillow: opening a pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unreadable(path, "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a line per image that no user can act on
            return _read(path, side, as_stored=as_stored)
    except DataError:
        raise
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
        raise _unreadable(path, _describe_problem(error, path)) from None


def _read(path: Path, side: int | None, *, as_stored: bool) -> OpenedImage:
    try:
        if is_unfilled_jpeg(path):
            raise OSError("image file is truncated (it ends in zeros)")
        return _decode(path, side, as_stored=as_stored)
    except Image.DecompressionBombError:
        raise
    except Exception as error:
        # Only now, so that an image that Pillow reads is never read in another way.
        if isinstance(error, UnidentifiedImageError) and _register_plugins(path):
            return _decode(path, side, as_stored=as_stored)
        repaired = repair_image(path.read_bytes()) if path.stat().st_size <= _MAX_REPAIRED_BYTES else None
        if repaired is None:
            raise
        return OpenedImage(_decode(io.BytesIO(repaired), side, as_stored=as_stored).pixels, None)


def _decode(source: Path | BinaryIO, side: int | None, *, as_stored: bool) -> OpenedImage:
    with Image.open(source) as image:
        # For a JPEG alone; other formats ignore it. The size it chooses is never below what is asked for.
        if side is not None:
            image.draft("RGB", (side, side))
        raw_mode = _raw_mode(image)  # loading forgets it
        image.load()
        orientation = _orientation(image)
        turn = None if as_stored else _UPRIGHT.get(orientation)
        is_opaque = image.mode in ("RGB", "L") and not image.has_transparency_data
        is_plain = orientation == 1 and is_opaque and ";16" not in raw_mode
        plain_format = image.format if is_plain and image.format in ("JPEG", "PNG") else None
        pixels = to_rgb(image, raw_mode, as_stored=as_stored)
        return OpenedImage(pixels if turn is None else pixels.transpose(turn), plain_format)


def _raw_mode(image: Image.Image) -> str:
    """How Pillow calls the pixels' form in the file ("RGB;16B"); "" where it does not say."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none; 0 where it cannot be read, and the image stays as it is stored."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # whatever is wrong with the notes beside an image, its pixels are there
        return 0
    return value if isinstance(value, int) else 0


def _register_plugins(path: Path) -> bool:
    """Let Pillow know of the formats that installed packages add; can one of them be this file's?"""
    if _is_readable_format(find_file_kind(path)):  # then the file is damaged
        return False
    added = False
    for module_name, function in _PLUGINS:
        with contextlib.suppress(ImportError):
            module = importlib.import_module(module_name)
            if function:
                getattr(module, function)()
            added = True
    return added


def _describe_problem(error: Exception, path: Path) -> str:
    """What Pillow or the system says, without the path, which our text names already."""
    if isinstance(error, UnidentifiedImageError):
        return message("data.no-image-format", "it is in no image format that is known here")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "truncated" in str(error).lower():
        return message("data.image-cut-off", "it is cut off: {problem}", problem=error)
    return str(error).split(str(path))[0].strip(" '") or type(error).__name__


def _unreadable(path: Path, problem: str) -> DataError:
    """The error of an image that cannot be read: what it is instead, if it says so itself."""
    kind = _other_kind(path)
    if kind is not None:
        problem = message("data.image-is-other", "it is {kind}", kind=kind)
    return DataError(
        message(
            "data.image-unreadable", "image {file} cannot be read ({problem})", file=path, problem=problem
        ),
        _hint(kind),
    )


def _hint(kind: FileKind | None) -> Message | str:
    if kind is None:
        return message("data.image-unreadable.hint", "fetch it again")
    return kind.remedy or message("data.image-is-other.hint", "name an image file")


def _other_kind(path: Path) -> FileKind | None:
    """What a file is, unless it is an image of a format that Pillow reads: then its decoder knows better."""
    try:
        kind = find_file_kind(path)
    except OSError:  # it may not be read
        return None
    return None if _is_readable_format(kind) else kind


def _is_readable_format(kind: FileKind | None) -> bool:
    """Has Pillow, as it is installed here, a decoder for such a file?"""
    Image.init()
    return kind is not None and kind.format in Image.OPEN
