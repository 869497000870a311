"""Images as they come, opened alike everywhere: RGB, upright, 8 bit.

Of an animation or a file of several pages, the first is read. What is transparent, deep or of other colours becomes
RGB by the rule of `image_colours.py`; what is damaged beside its pixels is read by that of `image_repair.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import stat
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from kovqa_core.data.file_kind import FileKind, data_kind, find_file_kind
from kovqa_core.data.image_colours import to_rgb
from kovqa_core.data.image_formats import IMAGE_FORMATS, PILLOW_FORMATS, read_image_format
from kovqa_core.data.image_memory import (
    allow_many_pixels,
    image_memory_limit,
    many_pixels_error,
    require_file_memory,
    require_icon_memory,
    require_image_memory,
)
from kovqa_core.data.image_repair import is_unfilled_jpeg, repair_image
from kovqa_core.data.image_source import ImageSource, image_in_place, source_name
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.messages import Message, error_text, message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.process_limits import find_limit, has_memory, is_memory_error

# Pillow logs what it finds in damaged files; without a handler, Python prints such lines among ours.
logging.getLogger("PIL").addHandler(logging.NullHandler())
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
# Packages that teach Pillow a format: (module, its function that does so; "": importing is enough).
_PLUGINS = {"HEIC": ("pillow_heif", "register_heif_opener"), "AVIF": ("pillow_avif", "")}


@dataclass(frozen=True)
class OpenedImage:
    """An image, and whether its file can be handed on as it is.

    Attributes:
        pixels: RGB, upright, 8 bit.
        plain_format: JPEG or PNG where every reader sees these very pixels in the file: it is upright, opaque, of
            8 bits and undamaged; else None.
        turn: what makes upright what is stored; None: it is upright.
    """

    pixels: Image.Image
    plain_format: str | None
    turn: Image.Transpose | None


def open_image(source: ImageSource, side: int | None = None, *, as_stored: bool = False) -> Image.Image:
    """An image as RGB, upright, over white where it is transparent.

    Args:
        source: a file's path or a whole file's bytes, in one of `IMAGE_FORMATS` by its content; HEIC needs
            pillow-heif.
        side: pixels a side that are enough: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size, still no
            smaller than this, which saves most of the time. None: decode exactly.
        as_stored: as BEiT-3's and LLaVA's originals read it: EXIF orientation and transparency are ignored.

    Raises:
        DataError: missing, not an image, truncated, or larger than KOVQA_IMAGE_MEMORY allows.
        SettingsError: that variable is not a size.
    """
    return read_image(source, side, as_stored=as_stored).pixels


def read_image(source: ImageSource, side: int | None = None, *, as_stored: bool = False) -> OpenedImage:
    """An image, and whether its file can be handed on; as `open_image`."""
    try:
        # Before Pillow: opening a pipe would wait for ever.
        source = image_in_place(source, image_memory_limit())
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise _unreadable(source, "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a line per image that no user can act on
            return _read(source, side, as_stored=as_stored)
    except (DataError, SettingsError):
        raise
    except Image.DecompressionBombError as error:
        raise many_pixels_error(source, error) from None
    except FileNotFoundError:
        raise DataError(
            message("data.image-missing", "image {file} is missing", file=source_name(source)),
            message("data.image-missing.hint", "restore it"),
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever their formats' code raises
        _require_room(error, source)
        raise _unreadable(source, _describe_problem(error, source)) from None


def _read(source: ImageSource, side: int | None, *, as_stored: bool) -> OpenedImage:
    image_format = read_image_format(source)
    if image_format is None or not _can_decode(image_format):
        raise UnidentifiedImageError
    try:
        if image_format == "JPEG" and is_unfilled_jpeg(source):
            raise OSError("image file is truncated (it ends in zeros)")
        require_file_memory(source, image_format)
        if image_format == "ICO":
            require_icon_memory(source)
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        return _decode(stream, source, image_format, side, as_stored=as_stored)
    except (Image.DecompressionBombError, DataError, SettingsError):
        raise
    except Exception as error:
        _require_room(error, source)
        # Only now, so that an image that Pillow reads is never read in another way.
        repaired = repair_image(source) if image_format in ("JPEG", "PNG") else None
        if repaired is None:
            raise
        stream = io.BytesIO(repaired)
        opened = _decode(stream, source, image_format, side, as_stored=as_stored)
        return replace(opened, plain_format=None)


def _decode(
    stream: Path | BinaryIO, source: ImageSource, image_format: str, side: int | None, *, as_stored: bool
) -> OpenedImage:
    allow_many_pixels()
    with Image.open(stream, formats=(PILLOW_FORMATS[image_format],)) as image:
        coded_size = image.size
        # For a JPEG alone; other formats ignore it. The size it chooses is never below what is asked for.
        if side is not None:
            image.draft("RGB", (side, side))
        raw_mode = _raw_mode(image)  # loading forgets it
        require_image_memory(source, image, coded_size)
        image.load()
        orientation = _orientation(image)
        turn = _UPRIGHT.get(orientation)
        is_opaque = image.mode in ("RGB", "L") and not image.has_transparency_data
        is_plain = orientation == 1 and is_opaque and ";16" not in raw_mode
        plain_format = image.format if is_plain and image.format in ("JPEG", "PNG") else None
        pixels = to_rgb(image, raw_mode, as_stored=as_stored)
        if turn is not None and not as_stored:
            image.close()  # lets go of its pixels: never more than two images are in memory
            pixels = pixels.transpose(turn)
        return OpenedImage(pixels, plain_format, turn)


def _require_room(error: Exception, source: ImageSource) -> None:
    """See that an image is to blame for an error, not a limit of this process: such an image is not left out.

    Raises:
        MachineError: there is no memory, or no descriptor, for one more image.
    """
    problem = error
    # The second is WebP's, of a damaged file and without memory alike.
    if is_memory_error(error) or "could not create decoder object" in str(error):
        # Damaged files, too, make decoders ask for memory that nobody has; what one image may take is there then.
        if has_memory(image_memory_limit()):
            return
        problem = MemoryError(str(source_name(source)))
    elif isinstance(error, UnidentifiedImageError):
        # Pillow passes over plug-ins that it has no descriptor for.
        try:
            os.close(os.open(source if isinstance(source, Path) else os.devnull, os.O_RDONLY))
        except OSError as refused:
            problem = refused
    if limit := find_limit(problem):
        raise limit from None


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
    except MemoryError:
        raise
    except Exception:  # whatever is wrong with the notes beside an image, its pixels are there
        return 0
    return value if isinstance(value, int) else 0


def _can_decode(image_format: str) -> bool:
    """Has Pillow, as it is installed here or with a plug-in that is, a decoder for a format?"""
    Image.init()
    name = PILLOW_FORMATS[image_format]
    if name not in Image.OPEN and image_format in _PLUGINS:
        module_name, function = _PLUGINS[image_format]
        with contextlib.suppress(ImportError):
            module = importlib.import_module(module_name)
            if function:
                getattr(module, function)()
    return name in Image.OPEN


def _describe_problem(error: Exception, source: ImageSource) -> str:
    """What Pillow or the system says, without the path (or the stream), which our text names already."""
    if isinstance(error, UnidentifiedImageError):
        return message(
            "data.no-image-format", "it is in no image format that is read: {formats}",
            formats=", ".join(IMAGE_FORMATS),
        )  # fmt: skip
    if isinstance(error, OSError) and error.strerror:
        return system_reason(error)
    if "truncated" in str(error).lower():
        return message("data.image-cut-off", "it is cut off: {problem}", problem=error)
    name = str(source) if isinstance(source, Path) else "<_io.BytesIO"
    if isinstance(said := error_text(error), Message):
        return said
    return said.split(name)[0].strip(" '") or type(error).__name__


def _unreadable(source: ImageSource, problem: str) -> DataError:
    """The error of an image that cannot be read: what it is instead, if it says so itself."""
    kind = _other_kind(source)
    if kind is not None:
        problem = message("data.image-is-other", "it is {kind}", kind=kind.name)
        if kind.remedy:  # also where the hint is not shown
            problem = message(
                "data.image-other-remedy", "it is {kind}: {remedy}", kind=kind.name, remedy=kind.remedy
            )
    return DataError(
        message(
            "data.image-unreadable", "image {file} cannot be read ({problem})",
            file=source_name(source), problem=problem,
        ),
        _hint(kind),
    )  # fmt: skip


def _hint(kind: FileKind | None) -> Message | str:
    if kind is None:
        return message("data.image-unreadable.hint", "fetch it again, or convert it to PNG or JPEG")
    return kind.remedy or message("data.image-is-other.hint", "name an image file")


def _other_kind(source: ImageSource) -> FileKind | None:
    """What a file is, unless it is an image of a format that is read here: then its decoder knows better."""
    try:
        kind = data_kind(source) if isinstance(source, bytes) else find_file_kind(source)
    except OSError:  # it may not be read
        return None
    is_readable = kind is not None and kind.format in PILLOW_FORMATS and _can_decode(kind.format)
    return None if is_readable else kind
