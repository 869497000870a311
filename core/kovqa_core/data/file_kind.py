"""What a file is by its first bytes, whatever its name says: for errors about files that are not what they should be.

Sources: the formats' own specifications; the pointer of Git LFS in docs/spec.md of git-lfs. Images: `image_formats.py`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.image_formats import image_format
from kovqa_core.messages import Message, message

# Signatures that readers of these formats ask for as well.
ZIP_HEADS = (b"PK\3\4", b"PK\5\6")
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_FIRST_BYTES = 1024  # enough for a page's <html> behind comments, and for a tar's mark


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Attributes:
        name: with its article, as in "it is an HTML page".
        remedy: what to do; "" where the format alone does not tell.
        format: of an image, one of `IMAGE_FORMATS`; "" of anything else.
    """

    name: str
    remedy: str = ""
    format: str = ""


def find_file_kind(path: Path) -> FileKind | None:
    """What a file is; None where its first bytes do not tell.

    Args:
        path: of anything that is there: a folder, a pipe or a device is never opened.

    Raises:
        OSError: it is not there, or may not be read.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        return _special_file_kind(mode)
    with path.open("rb") as stream:
        first_bytes = stream.read(_FIRST_BYTES)
    return data_kind(first_bytes)


def _special_file_kind(mode: int) -> FileKind:
    """What a path names that has no bytes of its own, by `st_mode`."""
    if stat.S_ISDIR(mode):
        return FileKind(message("data.kind.folder", "a folder"))
    if stat.S_ISFIFO(mode):
        return FileKind(message("data.kind.pipe", "a named pipe"))
    return FileKind(message("data.kind.device", "a device or a socket"))


def data_kind(data: bytes) -> FileKind | None:
    """What bytes are, by the first thousand of them; None where they do not tell."""
    data = data[:_FIRST_BYTES]
    if not data:
        return FileKind(message("data.kind.empty", "empty"), _fetch_again())
    if not data.strip(b"\0"):
        return FileKind(message("data.kind.zeros", "nothing but zero bytes"), _fetch_again())
    format = image_format(data)
    if format is not None:
        return _image_kind(format)
    if data[4:8] == b"ftyp":  # ISO's base media format, of none of the brands that images have
        return FileKind(message("data.kind.video", "a video"))
    for start, kind in _starts():
        if data.startswith(start):
            return kind
    if data[257:262] == b"ustar":
        return FileKind(message("data.kind.tar", "a tar archive"), _unpack())
    return _text_kind(data)


def _fetch_again() -> Message:
    return message("data.kind.fetch-again", "fetch it again")


def _unpack() -> Message:
    return message("data.kind.unpack", "unpack it")


def _starts() -> Iterator[tuple[bytes, FileKind]]:
    """What files begin with."""
    lfs = message("data.kind.lfs-pull", "git lfs pull")
    yield (
        b"version https://git-lfs.github.com/spec/",
        FileKind(message("data.kind.lfs-pointer", "a Git LFS pointer"), lfs),
    )
    yield b"/annex/objects/", FileKind(
        message("data.kind.annex-pointer", "a git-annex pointer"), message("data.kind.annex-get", "git annex get")
    )  # fmt: skip
    yield from _image_starts()
    yield from _archive_starts()
    yield b"%PDF-", FileKind(message("data.kind.pdf", "a PDF document"))
    yield PARQUET_MAGIC, FileKind(message("data.kind.parquet", "a Parquet table"))
    yield (
        OLE_MAGIC,
        FileKind(message("data.kind.ole", "an old Office file (.xls, .doc, .hwp)")),
    )
    yield b"SQLite format 3\0", FileKind(message("data.kind.sqlite", "an SQLite database"))
    yield b"\x93NUMPY", FileKind(message("data.kind.numpy", "a NumPy array"))
    yield b"\x89HDF\r\n\x1a\n", FileKind(message("data.kind.hdf5", "an HDF5 file"))
    yield (
        b"\0\5\26\7",
        FileKind(message("data.kind.apple-double", "what a Mac keeps beside a file (AppleDouble)")),
    )


def _image_kind(format: str) -> FileKind:
    if format == "HEIC":
        return FileKind(
            message("data.kind.heic", "a HEIC image"),
            message("data.kind.heic-plugin", "convert it, or pip install pillow-heif"),
            format,
        )
    if format == "AVIF":
        return FileKind(
            message("data.kind.avif", "an AVIF image"),
            message("data.kind.avif-plugin", "convert it, or pip install -U pillow (11.3 and later read it)"),
            format,
        )
    return FileKind(message("data.kind.image", "an image ({format})", format=format), format=format)


def _image_starts() -> Iterator[tuple[bytes, FileKind]]:
    """Of images in formats that are not read."""
    jxl = FileKind(message("data.kind.jxl", "a JPEG XL image"), _convert())
    yield from ((start, jxl) for start in (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))
    eps = FileKind(message("data.kind.eps", "a PostScript or EPS drawing"), _convert())
    yield from ((start, eps) for start in (b"%!PS", b"\xc5\xd0\xd3\xc6"))
    yield b"8BPS", FileKind(message("data.kind.psd", "a Photoshop file"), _convert())
    for start, name in (
        (b"icns", "ICNS"), (b"DDS ", "DDS"), (b"qoif", "QOI"), (b"\x01\xda", "SGI"), (b"SIMPLE  =", "FITS"),
        (b"\xd7\xcd\xc6\x9a", "WMF"), (b"\0\0\2\0", "CUR"), (b"/* XPM */", "XPM"), (b"\x59\xa6\x6a\x95", "SUN"),
    ):  # fmt: skip
        other = message(
            "data.kind.other-image", "an image ({format}), a format that is not read", format=name
        )
        yield start, FileKind(other, _convert())


def _convert() -> Message:
    return message("data.kind.convert", "convert it to PNG or JPEG")


def _archive_starts() -> Iterator[tuple[bytes, FileKind]]:
    zips = FileKind(message("data.kind.zip", "a zip archive (or .xlsx, .docx, .hwpx)"), _unpack())
    yield from ((start, zips) for start in ZIP_HEADS)
    yield GZIP_MAGIC, FileKind(message("data.kind.gzip", "packed with gzip"), _unpack())
    yield b"7z\xbc\xaf\x27\x1c", FileKind(message("data.kind.7z", "a 7z archive"), _unpack())
    yield b"Rar!\x1a\x07", FileKind(message("data.kind.rar", "a RAR archive"), _unpack())


def _text_kind(data: bytes) -> FileKind | None:
    """What a text is; None if it is none, or any other than a page, XML or JSON."""
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        text.startswith(b"<") and b"<html" in text
    ):
        return FileKind(message("data.kind.html", "an HTML page"), _fetch_again())
    if text.startswith(b"<svg") or (text.startswith(b"<") and b"<svg" in text):
        return FileKind(message("data.kind.svg", "an SVG drawing"), _convert())
    if text.startswith((b"<?xml", b"<error")):
        return FileKind(message("data.kind.xml", "an XML text"))
    if text.startswith((b"{", b"[")):
        return FileKind(message("data.kind.json", "a JSON text"))
    return None
