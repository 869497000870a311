"""Unpacks what was fetched: zip, tar, tar.gz, tar.bz2, split zips and `.partN` pieces, safely.

One archive becomes one folder, which appears whole or not at all. Links, devices, names that leave
the folder and bombs are refused; names become NFC, and those that Korean Windows wrote become
readable. Contents are never changed. Source: docs/sources/datasets.md, D4, D9 and D11.
"""

from __future__ import annotations

import bz2
import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.download import tar
from kovqa_core.download.members import MemberNames, check_disk_space, check_unpacked_size, decode_member_name
from kovqa_core.download.part_file import locked_part_file
from kovqa_core.download.split_archive import PART_VOLUME_NAME, JoinedVolumes, archive_volumes, open_zip
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import disk_errors, read_json, to_nfc, write_folder, write_json
from kovqa_core.net.request import DownloadProgress

UNPACK_RECEIPT = ".unpacked.json"  # in the folder: from what it was unpacked, and how much
_UTF8_FLAG = 0x800  # flag of a zip's member: the name is UTF-8
_ENCRYPTED_FLAG = 0x1
_STRANGE_ZIP_TYPES = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
# What zipfile, gzip and zlib raise for broken bytes.
_DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError)


def unpack_archive(archive: Path, folder: Path, told: DownloadProgress | None = None) -> list[Path]:
    """Unpack an archive into a folder of its own.

    Nothing is done when the folder is what this archive unpacks to already. After a kill the next
    call begins again; only a `.part` folder was left, and it is written over.

    Args:
        archive: the archive, or any of the pieces it came in.
        folder: where its members go; must not hold anything else.
        told: hears bytes done and bytes in all (of the packed file where the contents' size is unknown).

    Returns:
        The unpacked files, sorted.

    Raises:
        DataError: the archive is damaged, encrypted, of another kind, or holds what is refused.
        MachineError: the disk has no room.
        SettingsError: the folder holds something else.
    """
    paths = archive_volumes(archive)
    part = PART_VOLUME_NAME.fullmatch(paths[0].name)
    name = to_nfc(part["name"] if part else paths[-1].name)
    states = [path.stat() for path in paths]
    source = {
        "archive": name,
        "bytes": sum(state.st_size for state in states),
        "modified": max(state.st_mtime_ns for state in states),
    }
    job = _UnpackJob(name, paths, folder, told or (lambda done, total, note="": None))
    place = folder.resolve()
    with disk_errors(folder), locked_part_file(place.with_name(f".{place.name}"), told):
        if not _holds_archive(folder, source):
            write_folder(folder, lambda part: _unpack_into(job, part, source))
    return _unpacked_files(folder)


@dataclass(frozen=True)
class _UnpackJob:
    name: str
    paths: list[Path]
    folder: Path
    told: DownloadProgress


def _unpacked_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / UNPACK_RECEIPT)


def _holds_archive(folder: Path, source: dict[str, Any]) -> bool:
    """Does the folder hold what the archive unpacks to? A folder with anything else in it is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    receipt = read_json(folder / UNPACK_RECEIPT) if (folder / UNPACK_RECEIPT).is_file() else {"source": {}}
    if receipt["source"].get("archive") != source["archive"]:
        raise SettingsError(
            f"{folder} exists and was not unpacked from {source['archive']}",
            "choose another folder; nothing was touched",
        )
    files = _unpacked_files(folder)
    if (len(files), sum(path.stat().st_size for path in files)) != (
        receipt["files"],
        receipt["unpacked_bytes"],
    ):
        raise SettingsError(
            f"{folder} was changed since it was unpacked from {source['archive']}",
            "move it away or remove it, and run again",
        )
    return bool(receipt["source"] == source)


def _unpack_into(job: _UnpackJob, part: Path, source: dict[str, Any]) -> None:
    names = MemberNames(job.name)
    names.place(UNPACK_RECEIPT)
    with JoinedVolumes(job.paths) as stream:
        read = _choose_reader(job.name, stream.read(tar.TAR_BLOCK))
    try:
        files, size = read(job, names, part)
    except _DAMAGE_ERRORS as error:
        raise DataError(f"{job.name} is damaged or cut short: {error}", "fetch it again") from None
    except OSError as error:
        if error.errno is not None:  # the disk, not the decompressor
            raise
        raise DataError(f"{job.name} is damaged: {error}", "fetch it again") from None
    write_json(
        part / UNPACK_RECEIPT,
        {"source": source, "files": files, "unpacked_bytes": size, "renamed": names.renamed},
    )


_ArchiveReader = Callable[[_UnpackJob, MemberNames, Path], tuple[int, int]]  # -> files, bytes


def _choose_reader(name: str, head: bytes) -> _ArchiveReader:
    """What reads an archive that begins like this; the file's name is not believed."""
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return _unpack_zip
    if head.startswith((b"\x1f\x8b", b"BZh")) or tar.is_tar(head):
        return _unpack_tar
    known = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"\xfd7zXZ": "an xz archive"}
    what = next((kind for begin, kind in known.items() if head.startswith(begin)), "")
    if not head:
        what = "empty"
    elif head.lstrip()[:1] == b"<":
        what = "a web page"
    raise DataError(
        f"{name} is {what or 'neither zip, tar, tar.gz nor tar.bz2'}",
        "unpack it by hand" if "archive" in what else "fetch it again",
    )


# ------------------------------------------------------------------------------------- zip


def _unpack_zip(job: _UnpackJob, names: MemberNames, part: Path) -> tuple[int, int]:
    """Check every member, then write them: nothing is written of a zip that is refused."""
    zip, infos = open_zip(job.paths)
    with zip:
        places = [(info, _zip_member_path(names, info)) for info in infos]
        total = sum(info.file_size for info in infos)
        check_unpacked_size(job.name, total, sum(path.stat().st_size for path in job.paths))
        check_disk_space(job.folder, total)
        written = 0
        for info, path in places:
            if path is None:
                continue
            try:
                with zip.open(info) as contents:
                    written = _write_member(
                        part / path, tar.stream_chunks(contents), lambda done: job.told(done, total), written
                    )
            except NotImplementedError as error:  # deflate64 of Windows' Explorer, for one
                raise DataError(
                    f"{job.name}: member {path!r} cannot be read ({error})", "unpack it by hand, with 7-Zip"
                ) from None
            except _DAMAGE_ERRORS as error:
                raise DataError(
                    f"{job.name}: member {path!r} is damaged or cut short: {error}", "fetch it again"
                ) from None
    return sum(path is not None for _, path in places), written


def _zip_member_path(names: MemberNames, info: zipfile.ZipInfo) -> str | None:
    """Our path for a member; None for a folder."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8_FLAG:  # zipfile has read the bytes as CP437
        name = decode_member_name(name.encode("cp437"))
    if info.flag_bits & _ENCRYPTED_FLAG:
        raise DataError(
            f"{names.archive}: member {name!r} is encrypted", "unpack it by hand with its password"
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    folder = name.endswith(("/", "\\"))
    path = names.place(name, folder)
    if kind in _STRANGE_ZIP_TYPES:
        raise names.refused(name, f"a kind that is not unpacked: it is {_STRANGE_ZIP_TYPES[kind]}")
    check_unpacked_size(f"{names.archive}: member {name!r}", info.file_size, info.compress_size)
    return None if folder else path


# ------------------------------------------------------------------------------------- tar


def _unpack_tar(job: _UnpackJob, names: MemberNames, part: Path) -> tuple[int, int]:
    """Read once: the size of a packed tar is known at its end only, so room is asked for member by member."""
    packed = sum(path.stat().st_size for path in job.paths)
    check_disk_space(job.folder, packed)  # what is packed is not larger than what comes out
    written = files = 0
    stream: io.BufferedReader = io.BufferedReader(JoinedVolumes(job.paths), tar.READ_CHUNK_BYTES)
    with stream:
        plain = _decompressed_stream(stream)

        def told(done: int) -> None:
            check_unpacked_size(job.name, done, stream.tell())
            job.told(stream.tell(), packed)

        for member, contents in tar.iter_tar_members(plain, job.name):
            path = names.place(member.name, member.folder)
            if member.strange:
                raise names.refused(member.name, f"a kind that is not unpacked: it is {member.strange}")
            if member.folder:
                continue
            check_unpacked_size(job.name, member.size, member.size)
            check_disk_space(job.folder, member.size)
            written = _write_member(part / path, contents, told, written)
            files += 1
        rest = 0
        for chunk in tar.stream_chunks(plain):  # gzip and bzip2 keep their checksum at the end
            rest += len(chunk)
            told(written + rest)
    job.told(packed, packed)
    return files, written


def _decompressed_stream(stream: io.BufferedReader) -> tar.ByteStream:
    head = stream.peek(3)[:3]
    if head == b"BZh":
        return bz2.BZ2File(stream)
    return gzip.GzipFile(fileobj=stream) if head.startswith(b"\x1f\x8b") else stream


def _write_member(path: Path, chunks: Iterator[bytes], told: Callable[[int], None], written: int) -> int:
    """Write a new file; returns the bytes of the archive written so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            written += len(chunk)
            told(written)
    return written
