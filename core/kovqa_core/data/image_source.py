"""Where the bytes of an image are: in a file, or in memory, as an upload or a Python program brings them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from kovqa_core.messages import message

ImageSource = Path | bytes  # a file's path, or a whole file's bytes


def open_source(source: ImageSource) -> BinaryIO:
    """The bytes as a stream, to be closed."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def source_size(source: ImageSource) -> int:
    """How many bytes."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def source_name(source: ImageSource) -> Path | str:
    """What stands behind "image" in an error: the path; of bytes, which have no name, how many they are."""
    if isinstance(source, bytes):
        return message("data.image-in-memory", "of {size:,} bytes", size=len(source))
    return source
