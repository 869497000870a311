"""Small JPEGs of an index's images, made when they are looked at; a bounded number of bytes of them is kept."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path

from kovqa_core.data.image_names import is_inside
from kovqa_core.data.tar_images import find_in_tar
from kovqa_core.errors import DataError
from kovqa_core.messages import message
from kovqa_core.messages.readable_name import readable_name

SIDES = (320, 1280)  # pixels of the longer side: of the gallery, and of one row
CACHE_BYTES = 64 << 20
_JPEG_QUALITY = 80
_AT_ONCE = 2  # decoded images in memory: one may take a hundred MB


class Thumbnails:
    """The images of one folder; may be asked from any thread.

    Args:
        folder: no image leads out of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoding = threading.Semaphore(_AT_ONCE)

    def jpeg(self, image: str, side: int) -> bytes:
        """An image's JPEG.

        Args:
            image: its path below the folder.
            side: one of `SIDES`.

        Raises:
            DataError: it lies outside the folder, is not there, or is not an image.
        """
        if not is_inside(self._folder, image):
            raise DataError(
                message(
                    "view.image-outside",
                    "image {name} lies outside the image folder",
                    name=readable_name(image),
                )
            )
        path = self._folder / image
        try:
            place = find_in_tar(path)
            changed = (place.tar if place else path).stat().st_mtime_ns  # of a new file a new thumbnail
        except (OSError, ValueError):
            changed = 0
        key = (image, side, changed)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoding:
            jpeg = _make_jpeg(path, side)
        with self._lock:
            self._keep(key, jpeg)
        return jpeg

    def _keep(self, key: tuple[str, int, int], jpeg: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = jpeg
            self._bytes += len(jpeg)
        while self._bytes > CACHE_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


def _make_jpeg(path: Path, side: int) -> bytes:
    from kovqa_core.data.image_io import open_image

    # A JPEG is decoded at a fraction of its size.
    image = open_image(path, 2 * side)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
