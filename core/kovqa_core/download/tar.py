"""A tar read once, front to back, as it comes: from a file, from gzip, or from the network.

Python's `tarfile` takes a stream that was cut between two members, and a header that is none, for
the end. Here the end is the two blocks of zeros that every tar closes with (docs/sources/datasets.md, D10), and
anything else is an error. Headers are still read by `tarfile`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from kovqa_core.download.members import decoded
from kovqa_core.errors import DataError

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
_LONGEST_RECORD = 1 << 20  # bytes of a long name or a pax record: they are kept in memory
_RECORDS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_STRANGE = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class Stream(Protocol):
    """What is read from: fewer bytes than asked for mean the end."""

    def read(self, size: int, /) -> bytes: ...


class Cut(DataError):
    """A tar that ends too early: a download of it can be tried again."""


@dataclass(frozen=True)
class Member:
    """A file or folder of a tar; `strange` says what it is when it is neither."""

    name: str
    size: int  # bytes
    folder: bool = False
    strange: str = ""


def is_tar(head: bytes) -> bool:
    """Do these first bytes begin a tar? 512 of them are needed."""
    try:
        _header(head[:BLOCK])
    except tarfile.HeaderError:
        return False
    return True


def chunks(stream: Stream) -> Iterator[bytes]:
    """All that is left of a stream, piece by piece."""
    while chunk := stream.read(CHUNK):
        yield chunk


def members(stream: Stream, archive: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each member with its bytes, which must be taken before the next member; what is left is skipped.

    Raises:
        Cut: the stream ends before the two closing blocks of zeros.
        DataError: a header is damaged.
    """
    while (block := _exactly(stream, BLOCK, archive)) != bytes(BLOCK):
        member = _member(block, stream, archive)
        contents = _contents(stream, member.size, archive)
        yield member, contents
        for _ in contents:
            pass
    if _exactly(stream, BLOCK, archive) != bytes(BLOCK):
        raise _damaged(archive, "a single block of zeros")


def _member(block: bytes, stream: Stream, archive: str) -> Member:
    """The member a header begins; long names and pax records before it are applied."""
    name, size = None, None
    while True:
        try:
            info = _header(block)
        except tarfile.HeaderError as error:
            raise _damaged(archive, f"a header is unreadable ({error})") from None
        if info.size < 0 or (info.type in _RECORDS and info.size > _LONGEST_RECORD):
            raise _damaged(archive, f"a header with a size of {info.size:,} bytes")
        if info.type not in _RECORDS:
            break
        record = b"".join(_contents(stream, info.size, archive))
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = record.rstrip(b"\0")
        elif info.type == tarfile.XHDTYPE:
            values = _pax(record, archive)
            name = values.get(b"path", name)
            size = int(values[b"size"]) if b"size" in values else size
        block = _exactly(stream, BLOCK, archive)
    raw = name if name is not None else info.name.encode("utf-8", "surrogateescape")
    is_file = info.type in _FILES
    folder = info.isdir() or (is_file and raw.endswith(b"/"))
    strange = "" if is_file or folder else _STRANGE.get(info.type, "an unknown kind")
    if not is_file:  # a link may name a size, and has no bytes
        return Member(decoded(raw), 0, folder, strange)
    return Member(decoded(raw), info.size if size is None else size, folder)


def _header(block: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")


def _pax(record: bytes, archive: str) -> dict[bytes, bytes]:
    """The keys of a pax record: lines `LENGTH KEY=VALUE`, where LENGTH counts the whole line."""
    values: dict[bytes, bytes] = {}
    while record.strip(b"\0"):
        length = record[:8].partition(b" ")[0]
        if not length.isdigit() or not len(length) + 2 < int(length) <= len(record):
            raise _damaged(archive, "a pax record is unreadable")
        key, _, value = record[len(length) + 1 : int(length) - 1].partition(b"=")
        values[key] = value
        record = record[int(length) :]
    size = values.get(b"size", b"0")
    if not size.isdigit() or len(size) > 20 or any(key.startswith(b"GNU.sparse") for key in values):
        raise _damaged(archive, "a pax record of an unknown kind")
    return values


def _contents(stream: Stream, size: int, archive: str) -> Iterator[bytes]:
    """The bytes of a member, and the padding after it read away."""
    left = size
    while left:
        chunk = _exactly(stream, min(left, CHUNK), archive)
        left -= len(chunk)
        yield chunk
    _exactly(stream, -size % BLOCK, archive)


def _exactly(stream: Stream, size: int, archive: str) -> bytes:
    data = stream.read(size) if size else b""
    if len(data) < size:
        raise Cut(f"{archive} is cut short", "fetch it again")
    return data


def _damaged(archive: str, why: str) -> DataError:
    return DataError(f"{archive} is damaged: {why}", "fetch it again")
