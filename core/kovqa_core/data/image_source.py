"""Where the bytes of an image are: in a file, in a tar, or in memory, as an upload or a Python program brings them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from kovqa_core.data.tar_images import find_in_tar, read_tar_place
from kovqa_core.errors import DataError
from kovqa_core.files import read_bytes
from kovqa_core.messages import message

ImageSource = Path | bytes  # a file's path, which may lead into a tar, or a whole file's bytes


class TarredImage(bytes):
    """The bytes of an image in a tar, which errors call by its path.

    Attributes:
        path: that led to it.
    """

    path: Path


def image_in_place(source: ImageSource, most_bytes: int) -> ImageSource:
    """The bytes of an image that lies in a tar; any other source as it is.

    Args:
        source: of the image.
        most_bytes: that are read into memory.

    Raises:
        DataError: the tar is damaged, or the image larger.
        FileNotFoundError: the tar has no such file.
        OSError: it may not be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        source.stat()
    except NotADirectoryError:
        place = find_in_tar(source)
        if place is None:
            raise FileNotFoundError(str(source)) from None
    else:
        return source
    if place.size > most_bytes:
        raise DataError(
            message(
                "data.tarred-image-too-large", "image {file} has {size:,} bytes, more than the {limit:,} that are read",
                file=source, size=place.size, limit=most_bytes,
            ),
            message("data.tarred-image-too-large.hint", "unpack it, and name the file"),
        )  # fmt: skip
    image = TarredImage(read_tar_place(place))
    image.path = source
    return image


def has_image_file(path: Path) -> bool:
    """Is there a file under the path of an image, also in a tar?"""
    return path.exists() or find_in_tar(path) is not None


def read_image_bytes(path: Path) -> bytes:
    """The bytes of an image file, also of one in a tar.

    Raises:
        DataError: it cannot be read.
    """
    place = find_in_tar(path)
    return read_bytes(path) if place is None else read_tar_place(place)


def image_bytes_count(path: Path) -> int:
    """How many bytes an image file has, also one in a tar.

    Raises:
        OSError: it is not there.
    """
    place = find_in_tar(path)
    return path.stat().st_size if place is None else place.size


def open_source(source: ImageSource) -> BinaryIO:
    """The bytes as a stream, to be closed."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def source_size(source: ImageSource) -> int:
    """How many bytes."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def source_name(source: ImageSource) -> Path | str:
    """What stands behind "image" in an error: the path; of bytes, which have no name, how many they are."""
    if isinstance(source, TarredImage):
        return source.path
    if isinstance(source, bytes):
        return message("data.image-in-memory", "of {size:,} bytes", size=len(source))
    return source
