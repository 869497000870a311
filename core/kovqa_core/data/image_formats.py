"""What image format a file holds, by its first bytes; its name says nothing."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from kovqa_core.data.image_source import ImageSource, open_source

# Suffixes of the formats below, the most frequent ones first: labels often name an image without its suffix.
IMAGE_SUFFIXES = (
    ".jpg", ".png", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".avif", ".heic", ".heif",
    ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".mpo", ".apng",
)  # fmt: skip
# The closed list: format -> Pillow's name of the one decoder that such a file is given to. Pillow alone would try all
# that it has, and some start other programs (EPS: Ghostscript).
PILLOW_FORMATS = {
    "JPEG": "JPEG",  # MPO too
    "PNG": "PNG",  # APNG too
    "WebP": "WEBP",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "AVIF": "AVIF",
    "HEIC": "HEIF",  # by a plug-in
    "JPEG 2000": "JPEG2000",
    "PPM": "PPM",
    "TGA": "TGA",
    "ICO": "ICO",
}
IMAGE_FORMATS = tuple(PILLOW_FORMATS)
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"II\0*": "TIFF",  # the mark in the wrong order, which Pillow reads
    b"MM*\0": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",  # the codestream alone
}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_HEAD_BYTES = 64
_TGA_HEADER_BYTES, _TGA_PACKED = 18, 8


def find_image_format(path: Path) -> str | None:
    """The format of an image file, one of `IMAGE_FORMATS`; None for a file that holds none (an unreadable one too)."""
    try:
        return read_image_format(path)
    except OSError:
        return None


def read_image_format(source: ImageSource) -> str | None:
    """The format of an image file, one of `IMAGE_FORMATS`; None for a file that holds none.

    Raises:
        OSError: it is not there, or may not be read.
    """
    with open_source(source) as stream:
        head = stream.read(_HEAD_BYTES)
        if (format := image_format(head)) or len(head) < _TGA_HEADER_BYTES:
            return format
        # TGA alone has no signature: all of its header must make sense, and the file be long enough for it.
        return "TGA" if 0 < _smallest_tga(head) <= stream.seek(0, os.SEEK_END) else None


def image_format(head: bytes) -> str | None:
    """The format that a file's first bytes (64 are enough) announce; a TGA announces nothing."""
    for signature, format in _SIGNATURES.items():
        if head.startswith(signature):
            return format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if re.match(rb"P[1-6]\s+(\d|#)", head):
        return "PPM"
    if head[:4] == b"\0\0\1\0" and head[4:6] != b"\0\0":
        return "ICO"
    if head[4:8] == b"ftyp":
        return _heif_format(head)
    return None


def _heif_format(head: bytes) -> str | None:
    """AVIF and HEIC are one container: the brands tell them apart."""
    size = int.from_bytes(head[:4], "big")
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIF_BRANDS else None


def _smallest_tga(head: bytes) -> int:
    """The bytes that a TGA of this header has at least; 0 where the header makes no sense as one.

    Source: Truevision TGA File Format Specification, version 2.0.
    """
    id_bytes, has_palette, kind, _, palette_length, palette_bits = struct.unpack_from("<BBBHHB", head)
    width, height, bits, descriptor = struct.unpack_from("<HHBB", head, 12)
    allowed_bits = {1: (8, 16), 2: (15, 16, 24, 32), 3: (1, 8, 16)}.get(kind & ~_TGA_PACKED, ())
    if has_palette > 1 or bits not in allowed_bits or descriptor & 0xC0 or not width * height:
        return 0
    if (has_palette and palette_bits not in (15, 16, 24, 32)) or (
        kind & ~_TGA_PACKED == 1 and not has_palette
    ):
        return 0
    palette = has_palette * palette_length * -(-palette_bits // 8)
    # A packet of run lengths stands for 128 pixels at most.
    packed = -(-width * height // 128) * (1 + -(-bits // 8))
    pixels = packed if kind & _TGA_PACKED else -(-width * height * bits // 8)
    return int(_TGA_HEADER_BYTES + id_bytes + palette + pixels)
