"""Which files are archives: by their first bytes, and by their names, where one is expected."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path

from kovqa_core.data import tar_stream as tar
from kovqa_core.download.split_archive import PART_VOLUME_NAME
from kovqa_core.files import open_file, to_nfc

ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tgz", ".tar", ".zip")
_VOLUME_SUFFIXES = (".z01",)
IGNORED_NAMES = ("Thumbs.db", "desktop.ini")  # that file managers leave everywhere
# Local header; end record of an empty zip; marker of the first volume of a split one.
ZIP_HEADS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
OTHER_FORMATS = {b"Rar!": "RAR", b"7z\xbc\xaf": "7z", b"\xfd7zXZ": "xz", b"ALZ\x01": "ALZip", b"EGGA": "EGG"}
# What zipfile, gzip and zlib raise for broken bytes.
DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError)


def archive_format(path: Path) -> str:
    """What kind of archive a file is: ZIP, tar (packed or not), RAR, …; "" where it is none. Its name is not believed.

    A single packed file (`table.csv.gz`) does not count as an archive.
    """
    with open_file(path) as stream:
        head = stream.read(tar.TAR_BLOCK)
    if head.startswith(ZIP_HEADS):
        return "ZIP"
    if head.startswith((b"\x1f\x8b", b"BZh")):
        with open_file(path) as stream:
            try:
                head = decompressed_stream(io.BufferedReader(stream)).read(tar.TAR_BLOCK)
            except (OSError, *DAMAGE_ERRORS):
                return ""
    if tar.is_tar(head):
        return "tar"
    return next((name for magic, name in OTHER_FORMATS.items() if head.startswith(magic)), "")


def decompressed_stream(stream: io.BufferedReader) -> tar.ByteStream:
    """What a stream holds, unpacked where it is gzip or bzip2."""
    # `peek`: the reader that follows needs these bytes as well.
    head = stream.peek(3)[:3]
    if head == b"BZh":
        return bz2.BZ2File(stream)
    return gzip.GzipFile(fileobj=stream) if head.startswith(b"\x1f\x8b") else stream


def is_archive_name(name: str) -> bool:
    """Is a file an archive, or a volume of one, by its name?"""
    volume = PART_VOLUME_NAME.fullmatch(name)
    return (volume["name"] if volume else name).lower().endswith((*ARCHIVE_SUFFIXES, *_VOLUME_SUFFIXES))


def archive_stem(file_name: str) -> str:
    """The name of the folder that an archive, or a volume of one, unpacks to."""
    volume = PART_VOLUME_NAME.fullmatch(file_name)
    name = to_nfc(volume["name"] if volume else file_name)
    suffix = next((s for s in (*ARCHIVE_SUFFIXES, *_VOLUME_SUFFIXES) if name.lower().endswith(s)), "")
    # A file without a known suffix cannot have a folder of its own name beside it.
    return name[: -len(suffix)] if suffix else f"{name}.unpacked"
