"""A tar read front to back, as it comes (from a file, from gzip, or from the network), or by its headers alone.

Python's `tarfile` takes a stream that was cut between two members, and a header that is none, for
the end. Here the end is the two blocks of zeros that every tar closes with (docs/sources/datasets.md, D10), and
anything else is an error. Headers are still read by `tarfile`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from kovqa_core.data.archive_members import ArchiveDamaged, decode_member_name
from kovqa_core.messages import Message, message

TAR_BLOCK = tarfile.BLOCKSIZE
READ_CHUNK_BYTES = 1 << 20
_MAX_RECORD_BYTES = 1 << 20  # bytes of a long name or a pax record: they are kept in memory
_RECORD_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_STRANGE_TAR_TYPES = {
    tarfile.LNKTYPE: message("download.type-hard-link", "a hard link"),
    tarfile.SYMTYPE: message("download.type-symbolic-link", "a symbolic link"),
    tarfile.CHRTYPE: message("download.type-device", "a device"),
    tarfile.BLKTYPE: message("download.type-device", "a device"),
    tarfile.FIFOTYPE: message("download.type-pipe", "a pipe"),
}


class ByteStream(Protocol):
    """What is read from: fewer bytes than asked for mean the end."""

    def read(self, size: int, /) -> bytes: ...


class TarCutShort(ArchiveDamaged):
    """A tar that ends too early: a download of it can be tried again."""


@dataclass(frozen=True)
class TarMember:
    """A file or folder of a tar; `strange_type` says what it is when it is neither."""

    name: str
    size: int  # bytes
    folder: bool = False
    strange_type: Message | None = None


def is_tar(head: bytes) -> bool:
    """Do these first bytes begin a tar? 512 of them are needed."""
    try:
        _parse_header(head[:TAR_BLOCK])
    except tarfile.HeaderError:
        return False
    return True


def stream_chunks(stream: ByteStream) -> Iterator[bytes]:
    """All that is left of a stream, chunk by chunk."""
    while chunk := stream.read(READ_CHUNK_BYTES):
        yield chunk


def iter_tar_members(stream: ByteStream, archive: str) -> Iterator[tuple[TarMember, Iterator[bytes]]]:
    """Each member with its bytes, which must be taken before the next member; what is left is skipped.

    Raises:
        TarCutShort: the stream ends before the two closing blocks of zeros.
        ArchiveDamaged: a header is damaged.
    """
    while (block := read_exactly(stream, TAR_BLOCK, archive)) != bytes(TAR_BLOCK):
        member = _parse_member(block, stream, archive)
        contents = _member_contents(stream, member.size, archive)
        yield member, contents
        for _ in contents:
            pass
    _require_end(stream, archive)


def list_tar_members(stream: BinaryIO, archive: str) -> Iterator[tuple[TarMember, int]]:
    """Each member of a tar file with the place of its first byte; only headers are read.

    Raises:
        TarCutShort, ArchiveDamaged: as `iter_tar_members`.
    """
    while (block := read_exactly(stream, TAR_BLOCK, archive)) != bytes(TAR_BLOCK):
        member, place = _parse_member(block, stream, archive), stream.tell()
        yield member, place
        # Past the end it is found out by the next header, which is not there.
        stream.seek(place + member.size + -member.size % TAR_BLOCK)
    _require_end(stream, archive)


def _require_end(stream: ByteStream, archive: str) -> None:
    """See that a second block of zeros follows the first."""
    if read_exactly(stream, TAR_BLOCK, archive) != bytes(TAR_BLOCK):
        raise _damaged_error(archive, message("download.tar-single-zeros", "a single block of zeros"))


def _parse_member(block: bytes, stream: ByteStream, archive: str) -> TarMember:
    """The member a header begins; long names and pax records before it are applied."""
    name, size = None, None
    while True:
        try:
            info = _parse_header(block)
        except tarfile.HeaderError as error:
            reason = message("download.tar-header", "a header is unreadable ({error})", error=error)
            raise _damaged_error(archive, reason) from None
        # A damaged header may pass the weak checksum (a sum of bytes): its size must not ask for any amount of memory.
        if info.size < 0 or (info.type in _RECORD_TYPES and info.size > _MAX_RECORD_BYTES):
            reason = message("download.tar-size", "a header with a size of {size:,} bytes", size=info.size)
            raise _damaged_error(archive, reason)
        if info.type not in _RECORD_TYPES:
            break
        record = b"".join(_member_contents(stream, info.size, archive))
        # GNU's long name ends with a NUL. A long link name is not needed (links are refused), nor a global record.
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = record.rstrip(b"\0")
        elif info.type == tarfile.XHDTYPE:
            values = _parse_pax(record, archive)
            name = values.get(b"path", name)
            # The header's own field has 11 octal digits, 8 GiB: above it, pax has the true one.
            size = int(values[b"size"]) if b"size" in values else size
        block = read_exactly(stream, TAR_BLOCK, archive)
    # The bytes of the name as they stand: whether they are UTF-8 or CP949 is decided in one place for all archives.
    raw = name if name is not None else info.name.encode("utf-8", "surrogateescape")
    is_file = info.type in _FILE_TYPES
    # Tars before POSIX have no type for folders: a file whose name ends with a slash.
    folder = info.isdir() or (is_file and raw.endswith(b"/"))
    unknown_type = message("download.type-unknown", "an unknown type")
    strange_type = None if is_file or folder else _STRANGE_TAR_TYPES.get(info.type, unknown_type)
    if not is_file:  # a link may name a size, and has no bytes
        return TarMember(decode_member_name(raw), 0, folder, strange_type)
    return TarMember(decode_member_name(raw), info.size if size is None else size, folder)


def _parse_header(block: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")


def _parse_pax(record: bytes, archive: str) -> dict[bytes, bytes]:
    """The keys of a pax record: lines `LENGTH KEY=VALUE`, where LENGTH counts the whole line."""
    values: dict[bytes, bytes] = {}
    while record.strip(b"\0"):
        length = record[:8].partition(b" ")[0]
        # Shorter than its own number, or past the record's end: reading on would go anywhere.
        if not length.isdigit() or not len(length) + 2 < int(length) <= len(record):
            raise _damaged_error(archive, message("download.tar-pax", "a pax record is unreadable"))
        key, _, value = record[len(length) + 1 : int(length) - 1].partition(b"=")
        values[key] = value
        record = record[int(length) :]
    # A sparse file's bytes are not its contents: unpacked as they come, they would be another file.
    size = values.get(b"size", b"0")
    if not size.isdigit() or len(size) > 20 or any(key.startswith(b"GNU.sparse") for key in values):
        raise _damaged_error(archive, message("download.tar-pax-unknown", "a pax record of an unknown kind"))
    return values


def _member_contents(stream: ByteStream, size: int, archive: str) -> Iterator[bytes]:
    """The bytes of a member, and the padding after it read away."""
    left = size
    while left:
        chunk = read_exactly(stream, min(left, READ_CHUNK_BYTES), archive)
        left -= len(chunk)
        yield chunk
    read_exactly(stream, -size % TAR_BLOCK, archive)  # contents are padded to whole blocks of 512 bytes


def read_exactly(stream: ByteStream, size: int, archive: str) -> bytes:
    """So many bytes of a stream.

    Raises:
        TarCutShort: it has fewer.
    """
    data = stream.read(size) if size else b""
    if len(data) < size:
        raise TarCutShort(
            message("download.tar-cut-short", "{archive} is cut short", archive=archive),
            message("download.fetch-again.hint", "fetch it again"),
        )
    return data


def _damaged_error(archive: str, reason: Message) -> ArchiveDamaged:
    return ArchiveDamaged(
        message("download.archive-damaged", "{archive} is damaged: {reason}", archive=archive, reason=reason),
        message("download.fetch-again.hint", "fetch it again"),
    )
