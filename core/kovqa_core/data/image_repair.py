"""Image files that Pillow refuses though their pixels are there: rewritten in memory so that it reads them.

Pillow has a switch for such files, `ImageFile.LOAD_TRUNCATED_IMAGES`. It holds for the whole process, threads
included, and lets half an image pass as a whole one; so it stays off.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from kovqa_core.data.image_memory import image_memory_limit
from kovqa_core.data.image_source import ImageSource, open_source, source_size

MIN_JPEG_ROWS = 0.9  # of a JPEG without its end: with fewer rows it is no image but a part of one
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")  # what pixels and their place depend on
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_MAX_REPAIRED_BYTES = 64 << 20  # a larger file is not read into memory to be mended
_MANY_ZEROS = 64  # bytes: coded pixels never end in so many
_COMPARED_BYTES = 24  # of a pixel, decoded twice
_MAX_ZEROS, _ZEROS_BLOCK = 64 << 20, 1 << 20
# Bytes that no image holds, and no marker among them.
_NOISE = hashlib.shake_128(b"kovqa").digest(4096).replace(b"\xff", b"\x7f")


def repair_image(source: ImageSource) -> bytes | None:
    """The bytes of a damaged image as Pillow can read them; None where it is not worth it, or the file is very large.

    Of a PNG all is dropped that does not decide about pixels: a broken or oversized text, a chunk with a wrong
    checksum. A JPEG that lacks its end gets one, if at least `MIN_JPEG_ROWS` of its rows are there; what is
    missing of the others is grey, as libjpeg leaves it.
    """
    if source_size(source) > _MAX_REPAIRED_BYTES:
        return None
    data = source if isinstance(source, bytes) else source.read_bytes()
    if data.startswith(_PNG_START):
        return _necessary_png(data)
    if data.startswith(_JPEG_START):
        return _completed_jpeg(data)
    return None


def _necessary_png(data: bytes) -> bytes:
    kept = (
        _png_chunk(kind, content) if kind == b"eXIf" else chunk for kind, content, chunk in _png_chunks(data)
    )
    return _PNG_START + b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(type, content, the chunk as it is) of each chunk that is needed."""
    start = len(_PNG_START)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind in _PNG_KEPT:
            yield kind, data[start + 8 : end - 4], data[start:end]
        start = end


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def is_unfilled_jpeg(source: ImageSource) -> bool:
    """Does a JPEG end in zeros where its end should be: room that a download took on the disk, and did not fill?

    Zeros are codes of pixels, too, so that libjpeg decodes them to the last row without a complaint.
    """
    with open_source(source) as stream:
        if stream.read(len(_JPEG_START)) != _JPEG_START:
            return False
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - _MANY_ZEROS))
        if stream.read().strip(b"\0"):
            return False
        # Some cameras fill up behind the end. Read backwards, and not for ever: such a hole has any size.
        for end in range(size, max(0, size - _MAX_ZEROS), -_ZEROS_BLOCK):
            stream.seek(max(0, end - _ZEROS_BLOCK))
            block = stream.read(min(_ZEROS_BLOCK, end)).rstrip(b"\0")
            if block:
                return not block.endswith(_JPEG_END)
        return True


def _completed_jpeg(data: bytes) -> bytes | None:
    kept = data.rstrip(b"\0").removesuffix(_JPEG_END).rstrip(b"\xff")
    if not _has_all_scans(kept) or _whole_rows(kept) < MIN_JPEG_ROWS:
        return None
    return kept + _JPEG_END


def _whole_rows(data: bytes) -> float:
    """The fraction of a JPEG's rows that its bytes suffice for.

    libjpeg decodes what is missing as grey, and does not say where that begins. So it is decoded twice, as it is and
    with noise where the missing bytes would be: the first row that differs is the first that needs them.
    """
    with Image.open(io.BytesIO(data + _JPEG_END), formats=["JPEG"]) as image:
        if _COMPARED_BYTES * image.width * image.height > image_memory_limit():
            return 0.0
    as_is, with_noise = (_decode(data + tail + _JPEG_END) for tail in (b"", _NOISE))
    different = np.flatnonzero((as_is != with_noise).reshape(len(as_is), -1).any(1))
    return int(different[0]) / len(as_is) if len(different) else 1.0


def _decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image)


def _has_all_scans(data: bytes) -> bool:
    """Has a JPEG a scan, at least begun, for every coefficient of every component, to its last bit?

    A progressive JPEG has ten scans or so, and its first tenth shows the whole image, blurred.
    """
    component_ids, open_bits = b"", dict[tuple[int, int], int]()
    for marker, segment in _jpeg_segments(data):
        # Frame headers, without the tables (C4, CC) and the extension (C8) among their numbers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            component_ids = segment[6 : 6 + 3 * segment[5] : 3]
        elif marker == 0xDA:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            scanned = itertools.product(segment[1 : 1 + 2 * count : 2], range(first, last + 1))
            open_bits.update(dict.fromkeys(scanned, bits & 15))
    coefficients = itertools.product(component_ids, range(64))
    return bool(component_ids) and all(open_bits.get(each) == 0 for each in coefficients)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of each segment of a JPEG that is there as a whole."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        # In coded pixels FF is followed by 00 or is a restart; between segments it may be filling.
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if place + 2 + length > len(data):
            return
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length
