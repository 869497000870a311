"""One archive that lies in several files: `X.zip.part0 …`, and split zips `X.z01, X.z02, X.zip`.

Source: docs/sources/datasets.md, D9 and D11; split zips as in the zip format's specification (APPNOTE 8).
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.files import open_file
from kovqa_core.messages import Message, message

# AI-Hub's volumes: `X.zip.part0`, `X.zip.part1073741824` (docs/sources/datasets.md, D9).
PART_VOLUME_NAME = re.compile(r"(?P<name>.+)\.part(?P<number>\d+)", re.IGNORECASE)
# Signature, disk of the zip64 end record, its offset, number of disks.
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
# The end record of 22 bytes, its comment of up to 65,535, and the zip64 locator before both.
_MAX_END_BYTES = _ZIP64_LOCATOR.size + 22 + 65_535
_ZIP_VOLUME_NAME = re.compile(r"(?P<stem>.+)\.z(?P<number>\d+)", re.IGNORECASE)


def archive_volumes(archive: Path) -> list[Path]:
    """The files an archive consists of, in order; itself alone in most cases.

    Args:
        archive: the archive, any of its volumes, or the name its `.partN` volumes share.

    Raises:
        DataError: it does not exist, or a volume is missing.
    """
    if (disk := _ZIP_VOLUME_NAME.fullmatch(archive.name)) is not None:
        archive = archive.with_name(disk["stem"] + ".zip")
    if (volume := PART_VOLUME_NAME.fullmatch(archive.name)) is not None:
        archive = archive.with_name(volume["name"])
    volumes = _sibling_volumes(archive, PART_VOLUME_NAME, archive.name)
    if volumes and not archive.exists():
        sizes = [_volume_size(path) for path in volumes.values()]
        if not is_complete_sequence(list(volumes), sizes):
            reason = message(
                "download.volumes-incomplete",
                "its .part volumes do not join (there are {names})",
                names=_volume_names(volumes),
            )
            raise _unreadable_error(archive, reason)
        return list(volumes.values())
    disks = (
        _sibling_volumes(archive, _ZIP_VOLUME_NAME, archive.stem) if archive.suffix.lower() == ".zip" else {}
    )
    # The last volume is the `.zip` itself: `.z01` to the one before must be there without a gap.
    if list(disks) != list(range(1, len(disks) + 1)):
        reason = message(
            "download.disks-incomplete",
            "one of its volumes .z01, .z02 … is missing (there are {names})",
            names=_volume_names(disks),
        )
        raise _unreadable_error(archive, reason)
    if not archive.is_file():
        raise _unreadable_error(archive, message("download.archive-missing", "no such file"))
    return [*disks.values(), archive]


def _volume_size(path: Path) -> int:
    with open_file(path) as stream:
        return os.fstat(stream.fileno()).st_size


def is_complete_sequence(numbers: Sequence[int], sizes: Sequence[int]) -> bool:
    """Do sorted volume numbers follow on each other: as byte offsets, or counted from 0 or 1?"""
    offsets = [0, *accumulate(sizes)][:-1]
    return list(numbers) in (offsets, list(range(len(sizes))), list(range(1, len(sizes) + 1)))


def _sibling_volumes(archive: Path, pattern: re.Pattern[str], stem: str) -> dict[int, Path]:
    """Number -> volume, in the order of the numbers (text order would put 10 before 2)."""
    folder = archive.parent
    matches = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return dict(sorted((int(m["number"]), path) for m, path in matches if m and m[1] == stem))


def _volume_names(numbers: dict[int, Path]) -> str:
    return ", ".join(path.name for path in numbers.values())


def _unreadable_error(archive: Path, reason: Message) -> DataError:
    return DataError(
        message(
            "download.archive-unreadable", "cannot read {archive}: {reason}", archive=archive, reason=reason
        ),
        message("download.archive-unreadable.hint", "check the path, or fetch what is missing"),
    )


class JoinedVolumes(io.RawIOBase):
    """Several files read as one; only one of them is open at a time.

    Args:
        paths: the files, in order.
        patch: where, and with what, the bytes read differ from the files.
    """

    def __init__(self, paths: Sequence[Path], patch: tuple[int, bytes] = (0, b"")) -> None:
        self.paths = paths
        self.patch = patch
        self.starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._position = 0
        self._number = 0
        self._file = open_file(paths[0])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number = bisect_right(self.starts, self._position) - 1
        if number >= len(self.paths):
            return 0
        if number != self._number:  # one open file at a time: a set may have thousands of volumes
            self._file.close()
            self._file = open_file(self.paths[number])
            self._number = number
        self._file.seek(self._position - self.starts[number])
        count = self._file.readinto(buffer)
        # Laid over what was read, wherever the two overlap: the files themselves stay untouched.
        begin, patch = self.patch
        for at in range(max(begin, self._position), min(begin + len(patch), self._position + count)):
            buffer[at - self._position] = patch[at - begin]
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_zip(paths: Sequence[Path]) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """A zip, in one volume or several, and its members.

    `zipfile` reads joined volumes but for two things: a record that says there are several "disks"
    (changed while it is read), and offsets of members, which count from the beginning of their disk.
    """
    zip = zipfile.ZipFile(io.BufferedReader(JoinedVolumes(paths, _single_disk_locator(paths)), 1 << 16))
    if len(paths) == 1 or paths[0].suffix.lower() != ".z01":
        return zip, zip.infolist()
    with JoinedVolumes(paths) as joined:
        starts = joined.starts
    first = starts[bisect_right(starts, zip.start_dir) - 1]  # where the disk with the directory begins
    return zip, [_shift_member(info, starts[info.volume] - first) for info in zip.infolist()]


def _single_disk_locator(paths: Sequence[Path]) -> tuple[int, bytes]:
    """Offset of the zip64 locator, and the locator with its number of disks set to one; (0, b"") without one.

    `zipfile` refuses a locator that says more than one disk, and reads all else of a joined file.
    """
    size = sum(path.stat().st_size for path in paths)
    with JoinedVolumes(paths) as joined:
        joined.seek(max(0, size - _MAX_END_BYTES))
        tail = io.BufferedReader(joined).read()
    # It stands right before the end record; a zip without zip64 has none.
    locator = tail.rfind(b"PK\5\6") - _ZIP64_LOCATOR.size
    if len(paths) == 1 or locator < 0 or tail[locator : locator + 4] != b"PK\6\7":
        return 0, b""
    # Disk 0 and one disk in all: as if it had never been split.
    signature, _, offset, _ = _ZIP64_LOCATOR.unpack_from(tail, locator)
    return size - len(tail) + locator, _ZIP64_LOCATOR.pack(signature, 0, offset, 1)


def _shift_member(info: zipfile.ZipInfo, offset: int) -> zipfile.ZipInfo:
    """A member at its offset in the joined file. `zipfile` does not let `orig_filename` be changed: a new one."""
    shifted = zipfile.ZipInfo(info.orig_filename, info.date_time)
    for field in (
        "compress_type",
        "flag_bits",
        "CRC",
        "compress_size",
        "file_size",
        "external_attr",
        "extra",
    ):
        setattr(shifted, field, getattr(info, field))
    shifted.header_offset = info.header_offset + offset
    return shifted
