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
from kovqa_core.download.members import Names, check_size, check_space, decoded
from kovqa_core.download.part_file import locked
from kovqa_core.download.split_archive import PART, Joined, open_zip, pieces
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import disk_errors, nfc, read_json, write_folder, write_json
from kovqa_core.net.request import Told

RECEIPT = ".unpacked.json"  # in the folder: from what it was unpacked, and how much
_UTF8 = 0x800  # flag of a zip's member: the name is UTF-8
_ENCRYPTED = 0x1
_STRANGE = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
# What zipfile, gzip and zlib raise for broken bytes.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError)


def unpack(archive: Path, folder: Path, told: Told | None = None) -> list[Path]:
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
    paths = pieces(archive)
    part = PART.fullmatch(paths[0].name)
    name = nfc(part["name"] if part else paths[-1].name)
    states = [path.stat() for path in paths]
    source = {
        "archive": name,
        "bytes": sum(state.st_size for state in states),
        "modified": max(state.st_mtime_ns for state in states),
    }
    job = _Job(name, paths, folder, told or (lambda done, total, note="": None))
    place = folder.resolve()
    with disk_errors(folder), locked(place.with_name(f".{place.name}"), told):
        if not _is_done(folder, source):
            write_folder(folder, lambda part: _fill(job, part, source))
    return _files(folder)


@dataclass(frozen=True)
class _Job:
    name: str
    paths: list[Path]
    folder: Path
    told: Told


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECEIPT)


def _is_done(folder: Path, source: dict[str, Any]) -> bool:
    """Does the folder hold what the archive unpacks to? A folder with anything else in it is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    receipt = read_json(folder / RECEIPT) if (folder / RECEIPT).is_file() else {"source": {}}
    if receipt["source"].get("archive") != source["archive"]:
        raise SettingsError(
            f"{folder} exists and was not unpacked from {source['archive']}",
            "choose another folder; nothing was touched",
        )
    files = _files(folder)
    if (len(files), sum(path.stat().st_size for path in files)) != (
        receipt["files"],
        receipt["unpacked_bytes"],
    ):
        raise SettingsError(
            f"{folder} was changed since it was unpacked from {source['archive']}",
            "move it away or remove it, and run again",
        )
    return bool(receipt["source"] == source)


def _fill(job: _Job, part: Path, source: dict[str, Any]) -> None:
    names = Names(job.name)
    names.place(RECEIPT)
    with Joined(job.paths) as stream:
        read = _reader(job.name, stream.read(tar.BLOCK))
    try:
        files, size = read(job, names, part)
    except _DAMAGED as error:
        raise DataError(f"{job.name} is damaged or cut short: {error}", "fetch it again") from None
    except OSError as error:
        if error.errno is not None:  # the disk, not the decompressor
            raise
        raise DataError(f"{job.name} is damaged: {error}", "fetch it again") from None
    write_json(
        part / RECEIPT, {"source": source, "files": files, "unpacked_bytes": size, "renamed": names.renamed}
    )


_Reader = Callable[[_Job, Names, Path], tuple[int, int]]  # -> files, bytes


def _reader(name: str, head: bytes) -> _Reader:
    """What reads an archive that begins like this; the file's name is not believed."""
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return _unzip
    if head.startswith((b"\x1f\x8b", b"BZh")) or tar.is_tar(head):
        return _untar
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


def _unzip(job: _Job, names: Names, part: Path) -> tuple[int, int]:
    """Check every member, then write them: nothing is written of a zip that is refused."""
    zip, infos = open_zip(job.paths)
    with zip:
        places = [(info, _place(names, info)) for info in infos]
        total = sum(info.file_size for info in infos)
        check_size(job.name, total, sum(path.stat().st_size for path in job.paths))
        check_space(job.folder, total)
        written = 0
        for info, path in places:
            if path is None:
                continue
            try:
                with zip.open(info) as contents:
                    written = _write(
                        part / path, tar.chunks(contents), lambda done: job.told(done, total), written
                    )
            except NotImplementedError as error:  # deflate64 of Windows' Explorer, for one
                raise DataError(
                    f"{job.name}: member {path!r} cannot be read ({error})", "unpack it by hand, with 7-Zip"
                ) from None
            except _DAMAGED as error:
                raise DataError(
                    f"{job.name}: member {path!r} is damaged or cut short: {error}", "fetch it again"
                ) from None
    return sum(path is not None for _, path in places), written


def _place(names: Names, info: zipfile.ZipInfo) -> str | None:
    """Our path for a member; None for a folder."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8:  # zipfile has read the bytes as CP437
        name = decoded(name.encode("cp437"))
    if info.flag_bits & _ENCRYPTED:
        raise DataError(
            f"{names.archive}: member {name!r} is encrypted", "unpack it by hand with its password"
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    folder = name.endswith(("/", "\\"))
    path = names.place(name, folder)
    if kind in _STRANGE:
        raise names.refused(name, f"a kind that is not unpacked: it is {_STRANGE[kind]}")
    check_size(f"{names.archive}: member {name!r}", info.file_size, info.compress_size)
    return None if folder else path


# ------------------------------------------------------------------------------------- tar


def _untar(job: _Job, names: Names, part: Path) -> tuple[int, int]:
    """Read once: the size of a packed tar is known at its end only, so room is asked for member by member."""
    packed = sum(path.stat().st_size for path in job.paths)
    check_space(job.folder, packed)  # what is packed is not larger than what comes out
    written = files = 0
    stream: io.BufferedReader = io.BufferedReader(Joined(job.paths), tar.CHUNK)
    with stream:
        plain = _plain(stream)

        def told(done: int) -> None:
            check_size(job.name, done, stream.tell())
            job.told(stream.tell(), packed)

        for member, contents in tar.members(plain, job.name):
            path = names.place(member.name, member.folder)
            if member.strange:
                raise names.refused(member.name, f"a kind that is not unpacked: it is {member.strange}")
            if member.folder:
                continue
            check_size(job.name, member.size, member.size)
            check_space(job.folder, member.size)
            written = _write(part / path, contents, told, written)
            files += 1
        rest = 0
        for chunk in tar.chunks(plain):  # gzip and bzip2 keep their checksum at the end
            rest += len(chunk)
            told(written + rest)
    job.told(packed, packed)
    return files, written


def _plain(stream: io.BufferedReader) -> tar.Stream:
    head = stream.peek(3)[:3]
    if head == b"BZh":
        return bz2.BZ2File(stream)
    return gzip.GzipFile(fileobj=stream) if head.startswith(b"\x1f\x8b") else stream


def _write(path: Path, chunks: Iterator[bytes], told: Callable[[int], None], written: int) -> int:
    """Write a new file; returns the bytes of the archive written so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            written += len(chunk)
            told(written)
    return written
