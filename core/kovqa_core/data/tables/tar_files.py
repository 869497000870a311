"""The files of a tar one after the other, plain or in a gzip file, bounded in what they take."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from kovqa_core.bounded_json import MAX_DOCUMENT_BYTES
from kovqa_core.data.archive_members import MAX_COMPRESSION_RATIO, RATIO_FREE_BYTES
from kovqa_core.data.file_kind import GZIP_MAGIC
from kovqa_core.data.tar_images import member_name
from kovqa_core.data.tar_stream import (
    TAR_BLOCK,
    TarMember,
    is_tar,
    iter_tar_members,
    list_tar_members,
    read_exactly,
)
from kovqa_core.errors import DataError
from kovqa_core.files import open_file
from kovqa_core.messages import message
from kovqa_core.text_encoding import decode_text

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ReadMember = Callable[[int], bytes]  # at most so many bytes are taken


def is_tar_file(path: Path) -> bool:
    """Is it a tar, plain or in a gzip file?"""
    try:
        if not path.is_file():
            return False
        with open_file(path) as stream, _unpacked(stream) as tar:
            return is_tar(tar.read(TAR_BLOCK))
    except (OSError, EOFError, zlib.error, DataError):
        return False


def is_packed_tar(path: Path) -> bool:
    """Does a tar lie in a gzip file?"""
    with open_file(path) as stream:
        return stream.peek(2).startswith(GZIP_MAGIC)


def iter_tar_files(path: Path) -> Iterator[tuple[TarMember, ReadMember]]:
    """The files of a tar, each with what reads it before the next one is asked for.

    Raises:
        DataError: it is damaged, or unpacks to far more than its size.
    """
    with open_file(path) as stream:
        if not stream.peek(2).startswith(GZIP_MAGIC):
            for member, _ in list_tar_members(stream, str(path)):
                if not member.folder:
                    yield member, partial(_read_plain, stream, member, path)
            return
        with _unpacked(stream) as unpacked:
            tar = _BoundedStream(unpacked, stream, path)
            for member, contents in iter_tar_members(tar, str(path)):
                if not member.folder:
                    yield member, partial(_read_contents, contents, member, path)
            while tar.read(1 << 20):  # its checksum is at the end
                pass


def repeated_names(path: Path) -> frozenset[str]:
    """Names that several files of a plain tar have, as paths have them; only headers are read.

    Raises:
        DataError: it is damaged.
    """
    seen, repeated = set[int](), set[str]()
    with open_file(path) as stream:
        for member, _ in list_tar_members(stream, str(path)):
            name = member_name(member.name)
            if not member.folder and hash(name) in seen:
                repeated.add(name)
            seen.add(hash(name))
    return frozenset(repeated)


@contextlib.contextmanager
def _unpacked(stream: BinaryIO) -> Iterator[BinaryIO]:
    head = stream.read(2)
    stream.seek(0)
    if head != GZIP_MAGIC:
        yield stream
        return
    with gzip.GzipFile(fileobj=stream) as unpacked:
        yield unpacked  # type: ignore[misc]


@dataclass
class _BoundedStream:
    """A gzip stream that is whole, and not far longer than what it was packed into."""

    unpacked: BinaryIO
    packed: BinaryIO
    path: Path
    size: int = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self.unpacked.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                message(
                    "data.damaged-tar-gz",
                    "{file}: damaged gzip file ({problem})",
                    file=self.path,
                    problem=error,
                ),
                message("data.broken-json.hint", "fetch or unpack it again"),
            ) from None
        self.size += len(data)
        if self.size > RATIO_FREE_BYTES and self.size > MAX_COMPRESSION_RATIO * self.packed.tell():
            raise DataError(
                message(
                    "data.tar-bomb", "{file} unpacks to more than {ratio} times its size: refused",
                    file=self.path, ratio=MAX_COMPRESSION_RATIO,
                ),
                message("data.tar-bomb.hint", "unpack it by hand if you trust it"),
            )  # fmt: skip
        return data


def _read_plain(stream: BinaryIO, member: TarMember, path: Path, most_bytes: int) -> bytes:
    _require_size(member, path, most_bytes)
    return read_exactly(stream, member.size, str(path))


def _read_contents(contents: Iterator[bytes], member: TarMember, path: Path, most_bytes: int) -> bytes:
    _require_size(member, path, most_bytes)
    return b"".join(contents)


def _require_size(member: TarMember, path: Path, most_bytes: int) -> None:
    if member.size > most_bytes:
        raise DataError(
            message(
                "data.sample-file-too-large", "{file}: {name} has {size:,} bytes, more than the {most:,} that such a file "
                "may have", file=path, name=member.name, size=member.size, most=most_bytes,
            ),
            message("data.tar-bomb.hint", "unpack it by hand if you trust it"),
        )  # fmt: skip


def read_text_member(read: ReadMember, place: str) -> str:
    """The text of a file in a tar; raises DataError where it is none."""
    return decode_text(read(MAX_DOCUMENT_BYTES), place)
