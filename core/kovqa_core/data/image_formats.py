"""What image format a file holds, by its first bytes; its name says nothing."""

from __future__ import annotations

import re
from pathlib import Path

# Suffixes of the formats below, the most frequent ones first: labels often name an image without its suffix.
IMAGE_SUFFIXES = (
    ".jpg", ".png", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".avif", ".heic", ".heif",
    ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".mpo", ".apng",
)  # fmt: skip
IMAGE_FORMATS = (
    "JPEG",
    "PNG",
    "WebP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "HEIC",
    "JPEG 2000",
    "PPM",
    "TGA",
    "ICO",
)
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",  # MPO too
    b"\x89PNG\r\n\x1a\n": "PNG",  # APNG too
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",  # the codestream alone
}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_HEAD_BYTES = 64
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


def find_image_format(path: Path) -> str | None:
    """The format of an image file; None for a file that holds none (an unreadable one too).

    The closed list is `IMAGE_FORMATS`.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            if (format := image_format(head)) or not _may_be_tga(head):
                return format
            # TGA alone has no signature at its beginning; its second version has one at its end.
            stream.seek(max(0, path.stat().st_size - len(_TGA_FOOTER)))
            has_footer = stream.read() == _TGA_FOOTER
    except OSError:
        return None
    return "TGA" if has_footer or path.suffix.lower() == ".tga" else None


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


def _may_be_tga(head: bytes) -> bool:
    """Do these bytes make sense as a TGA's header: palette, kind, depth?"""
    return (
        len(head) >= 18 and head[1] in (0, 1) and head[2] in (1, 2, 3, 9, 10, 11) and head[16] in (8, 15, 16, 24, 32)
    )  # fmt: skip
