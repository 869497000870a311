"""Unpacks what was fetched: zip, tar, tar.gz, tar.bz2, split zips and `.partN` volumes, safely.

One archive becomes one folder, which appears whole or not at all. Links, devices, names that leave
the folder and bombs are refused; names become NFC, and those that Korean Windows wrote become
readable. Contents are never changed. Source: docs/sources/datasets.md, D4, D9 and D11.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.data import tar_stream as tar
from kovqa_core.data.archive_members import ArchiveDamaged, decode_member_name
from kovqa_core.download.archive_format import (
    ARCHIVE_SUFFIXES,
    DAMAGE_ERRORS,
    OTHER_FORMATS,
    ZIP_HEADS,
    archive_stem,
    decompressed_stream,
)
from kovqa_core.download.members import (
    MemberNames,
    check_disk_space,
    check_unpacked_size,
    unicode_path_field,
)
from kovqa_core.download.part_file import download_lock
from kovqa_core.download.split_archive import PART_VOLUME_NAME, JoinedVolumes, archive_volumes, open_zip
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import disk_errors, read_bytes, to_nfc, write_json
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.whole_folder import write_folder

UNPACK_RECEIPT = ".unpacked.json"  # in the folder: from what it was unpacked, and how much
_MAX_NESTING = 3  # archives in archives; more is a bomb
_UTF8_FLAG = 0x800  # flag of a zip's member: the name is UTF-8
_ENCRYPTED_FLAG = 0x1
_STRANGE_ZIP_TYPES = {
    stat.S_IFLNK: message("download.type-symbolic-link", "a symbolic link"),
    stat.S_IFCHR: message("download.type-device", "a device"),
    stat.S_IFBLK: message("download.type-device", "a device"),
    stat.S_IFIFO: message("download.type-pipe", "a pipe"),
    stat.S_IFSOCK: message("download.type-socket", "a socket"),
}


@dataclass(frozen=True)
class ArchiveIdentity:
    """Which archive a folder was unpacked from.

    Attributes:
        archive: its name, NFC.
        bytes: of all its volumes.
        modified: when the youngest of them was changed, in nanoseconds.
    """

    archive: str
    bytes: int
    modified: int


@dataclass(frozen=True)
class UnpackReceipt:
    """The file `.unpacked.json` in an unpacked folder.

    Attributes:
        source: what it was unpacked from.
        files, unpacked_bytes: how much it holds: a folder that was changed is not written over.
        renamed: our name -> the archive's, where they differ.
    """

    source: ArchiveIdentity
    files: int
    unpacked_bytes: int
    renamed: Mapping[str, str]


def read_unpack_receipt(folder: Path) -> UnpackReceipt | None:
    """An unpacked folder's receipt; None without one, or when it was damaged."""
    try:
        fields = parse_json(read_bytes(folder / UNPACK_RECEIPT))
        return UnpackReceipt(**{**fields, "source": ArchiveIdentity(**fields["source"])})
    except (DataError, ValueError, TypeError, KeyError):
        return None


def unpack_archive(
    archive: Path, folder: Path, on_progress: OnProgress = ignore_progress, *, nested: bool = False
) -> list[Path]:
    """Unpack an archive into a folder of its own.

    Nothing is done when the folder is what this archive unpacks to already. After a kill the next
    call begins again; only a `.part` folder was left, and it is written over.

    Args:
        archive: the archive, or any of its volumes.
        folder: where its members go; must not hold anything else.
        on_progress: called with the bytes written (those read of the archive where the contents' size is unknown).
        nested: archives inside become folders too, in place of themselves.

    Returns:
        The unpacked files, sorted.

    Raises:
        ArchiveDamaged: the archive is damaged, cut short, or none at all.
        DataError: it is encrypted, of another format, packed in a way nobody here reads, or holds what is refused.
        MachineError: the disk has no room.
        SettingsError: the folder holds something else.
    """
    paths = archive_volumes(archive)
    # Named after the whole, whichever volume was given: else each volume would be an archive of its own.
    volume = PART_VOLUME_NAME.fullmatch(paths[0].name)
    name = to_nfc(volume["name"] if volume else paths[-1].name)
    states = [path.stat() for path in paths]
    source = ArchiveIdentity(
        name, sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
    )
    job = _UnpackJob(name, paths, folder, on_progress)
    with disk_errors(folder), download_lock(folder, on_progress):
        if not _holds_archive(folder, source):
            write_folder(folder, lambda staging: _unpack_into(job, staging, source, nested=nested))
    return _unpacked_files(folder)


@dataclass(frozen=True)
class _UnpackJob:
    name: str
    paths: list[Path]
    folder: Path
    on_progress: OnProgress

    def show(self, done: int, total: int) -> None:
        """Report bytes done."""
        stage = message("download.unpacking", "unpacking {file}", file=self.name)
        self.on_progress(Progress(stage, done, total, "bytes"))


def _unpacked_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / UNPACK_RECEIPT)


def _holds_archive(folder: Path, source: ArchiveIdentity) -> bool:
    """Does the folder hold what the archive unpacks to? A folder with anything else in it is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    receipt = read_unpack_receipt(folder)
    if receipt is None or receipt.source.archive != source.archive:
        raise SettingsError(
            message(
                "download.folder-foreign",
                "{folder} exists and was not unpacked from {archive}",
                folder=folder,
                archive=source.archive,
            ),
            message("download.folder-foreign.hint", "choose another folder; nothing was touched"),
        )
    files = _unpacked_files(folder)
    size = sum(path.stat().st_size for path in files)
    # Somebody's own work may lie here: it is never written over.
    if (len(files), size) != (receipt.files, receipt.unpacked_bytes):
        raise SettingsError(
            message(
                "download.folder-changed",
                "{folder} was changed since it was unpacked from {archive}",
                folder=folder,
                archive=source.archive,
            ),
            message("download.folder-changed.hint", "move it away or remove it, and run again"),
        )
    return receipt.source == source


def _unpack_into(job: _UnpackJob, staging: Path, source: ArchiveIdentity, *, nested: bool) -> None:
    files, size, renamed = _unpack_members(job, staging)
    if nested:
        _unpack_nested(job, staging, _MAX_NESTING)
        paths = _unpacked_files(staging)
        files, size = len(paths), sum(path.stat().st_size for path in paths)
    write_json(staging / UNPACK_RECEIPT, asdict(UnpackReceipt(source, files, size, renamed)))


def _unpack_nested(job: _UnpackJob, folder: Path, levels: int) -> None:
    """Unpack the archives below a folder, each in place of itself."""
    for path in _unpacked_files(folder) if levels else ():
        inside = path.with_name(archive_stem(path.name))
        # One whose folder is there beside it stays as it is: nothing is mixed.
        if not path.name.lower().endswith(ARCHIVE_SUFFIXES) or inside.exists():
            continue
        inside.mkdir()
        _unpack_members(
            replace(job, name=f"{job.name}: {path.relative_to(folder).as_posix()}", paths=[path]), inside
        )
        path.unlink()
        _unpack_nested(job, inside, levels - 1)


def _unpack_members(job: _UnpackJob, staging: Path) -> tuple[int, int, Mapping[str, str]]:
    """Files, bytes, and our name -> the archive's where they differ."""
    names = MemberNames(job.name)
    names.claim_path(UNPACK_RECEIPT)  # a member of this name would be taken for our receipt
    with JoinedVolumes(job.paths) as stream:
        read_members = _choose_reader(job.name, stream.read(tar.TAR_BLOCK))
    try:
        files, size = read_members(job, names, staging)
    except DAMAGE_ERRORS as error:
        raise _damaged_error(job.name, error) from None
    except NotImplementedError as error:  # a later version of the zip format
        raise _unreadable_error(job.name, "*", error) from None
    except OSError as error:
        if error.errno is not None:  # the disk, not the decompressor
            raise
        raise _damaged_error(job.name, error) from None
    return files, size, names.renamed


def _damaged_error(archive: str, error: Exception) -> ArchiveDamaged:
    return ArchiveDamaged(
        message(
            "download.damaged", "{archive} is damaged or cut short: {error}", archive=archive, error=error
        ),
        message("download.fetch-again.hint", "fetch it again"),
    )


def _unreadable_error(archive: str, member: str, error: Exception) -> DataError:
    return DataError(
        message(
            "download.member-unreadable",
            "{archive}: member {member!r} cannot be read ({error})",
            archive=archive,
            member=member,
            error=error,
        ),
        message("download.member-unreadable.hint", "unpack it by hand, with 7-Zip"),
    )


_ArchiveReader = Callable[[_UnpackJob, MemberNames, Path], tuple[int, int]]  # -> files, bytes


def _choose_reader(name: str, head: bytes) -> _ArchiveReader:
    """What reads an archive that begins like this; the file's name is not believed."""
    if head.startswith(ZIP_HEADS):
        return _unpack_zip
    if head.startswith((b"\x1f\x8b", b"BZh")) or tar.is_tar(head):
        return _unpack_tar
    unpack_by_hand = message("download.unpack-by-hand.hint", "unpack it by hand")
    for magic, format_name in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(
                message(
                    "download.other-format", "{file} is a {format} archive", file=name, format=format_name
                ),
                unpack_by_hand,
            )
    if not head:
        text = message("download.archive-empty", "{file} is empty", file=name)
    elif head.lstrip()[:1] == b"<":
        text = message("download.archive-page", "{file} is a web page", file=name)
    else:
        text = message("download.not-an-archive", "{file} is neither zip, tar, tar.gz nor tar.bz2", file=name)
    raise ArchiveDamaged(text, message("download.fetch-again.hint", "fetch it again"))


# ------------------------------------------------------------------------------------- zip


def _unpack_zip(job: _UnpackJob, names: MemberNames, staging: Path) -> tuple[int, int]:
    """Check every member, then write them: nothing is written of a zip that is refused."""
    zip, infos = open_zip(job.paths)
    with zip:
        # The directory is at a zip's end, so everything is known, and can be refused, before the first byte.
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
                        staging / path,
                        tar.stream_chunks(contents),
                        lambda done: job.show(done, total),
                        written,
                    )
            except NotImplementedError as error:  # deflate64 of Windows' Explorer, for one
                raise _unreadable_error(job.name, path, error) from None
            except DAMAGE_ERRORS as error:
                raise ArchiveDamaged(
                    message(
                        "download.member-damaged",
                        "{archive}: member {member!r} is damaged or cut short: {error}",
                        archive=job.name,
                        member=path,
                        error=error,
                    ),
                    message("download.fetch-again.hint", "fetch it again"),
                ) from None
    return sum(path is not None for _, path in places), written


def _zip_member_path(names: MemberNames, info: zipfile.ZipInfo) -> str | None:
    """Our path for a member; None for a folder."""
    name = info.orig_filename  # `filename` is cut at a NUL, which would hide what follows it
    if not info.flag_bits & _UTF8_FLAG:  # zipfile has read the bytes as CP437
        raw = name.encode("cp437")
        name = unicode_path_field(info.extra, raw) or decode_member_name(raw)
    if info.flag_bits & _ENCRYPTED_FLAG:
        raise DataError(
            message(
                "download.member-encrypted",
                "{archive}: member {member!r} is encrypted",
                archive=names.archive,
                member=name,
            ),
            message("download.member-encrypted.hint", "unpack it by hand with its password"),
        )
    # 0 where the zip was made on Windows: then it is a file or folder by its name alone.
    member_type = stat.S_IFMT(info.external_attr >> 16)  # the Unix mode is in the upper half
    # Windows tools have written `\` as well, against the specification (APPNOTE 4.4.17).
    folder = name.endswith(("/", "\\"))
    path = names.claim_path(name, folder=folder)
    if member_type in _STRANGE_ZIP_TYPES:
        raise names.refused_type(name, _STRANGE_ZIP_TYPES[member_type])
    # Member by member too: a bomb can hide in a zip whose sum looks harmless.
    check_unpacked_size(f"{names.archive}: member {name!r}", info.file_size, info.compress_size)
    return None if folder else path


# ------------------------------------------------------------------------------------- tar


def _unpack_tar(job: _UnpackJob, names: MemberNames, staging: Path) -> tuple[int, int]:
    """Read once: the size of a packed tar is known at its end only, so room is asked for member by member."""
    packed = sum(path.stat().st_size for path in job.paths)
    check_disk_space(job.folder, packed)  # what is packed is not larger than what comes out
    written = files = 0
    stream: io.BufferedReader = io.BufferedReader(JoinedVolumes(job.paths), tar.READ_CHUNK_BYTES)
    with stream:
        tar_stream = decompressed_stream(stream)

        def on_bytes(done: int) -> None:
            check_unpacked_size(job.name, done, stream.tell())  # a bomb is noticed while it grows
            job.show(stream.tell(), packed)

        for member, contents in tar.iter_tar_members(tar_stream, job.name):
            path = names.claim_path(member.name, folder=member.folder)
            if member.strange_type:
                raise names.refused_type(member.name, member.strange_type)
            if member.folder:
                continue
            check_unpacked_size(job.name, member.size, member.size)
            check_disk_space(job.folder, member.size)
            written = _write_member(staging / path, contents, on_bytes, written)
            files += 1
        rest = 0
        for chunk in tar.stream_chunks(tar_stream):  # gzip and bzip2 have their checksum at the end
            rest += len(chunk)
            on_bytes(written + rest)
    job.show(packed, packed)
    return files, written


def _write_member(path: Path, chunks: Iterator[bytes], on_bytes: Callable[[int], None], written: int) -> int:
    """Write a new file; returns the bytes of the archive written so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # "x": an existing file is an error, should two names ever meet on a disk that takes them for one.
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            written += len(chunk)
            on_bytes(written)
    return written
