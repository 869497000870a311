"""AI-Hub's tar, written as it comes: each piece goes straight to its place in the final file.

The official shell keeps the tar, the pieces and the joined file, three times the size; here the
bytes are on the disk once. Source: docs/sources/datasets.md, D9.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.download import tar
from kovqa_core.download.members import MemberNames, check_disk_space, check_unpacked_size
from kovqa_core.download.split_archive import PART_VOLUME_NAME, is_complete_sequence
from kovqa_core.errors import DataError
from kovqa_core.files import disk_errors, fsync_path
from kovqa_core.net.request import DownloadProgress

# AI-Hub cuts at 1 GiB and numbers pieces by their byte offset; some old sets count 0, 1, 2. A number
# from here on is an offset and its piece is written there; below, the end of the tar decides.
_MIN_OFFSET_NUMBER = 1 << 16


@dataclass
class _GrowingFile:
    """A file whose pieces are coming."""

    path: str  # below the folder, at the end
    file: Path  # until then
    pieces: dict[int, int] = field(default_factory=dict)  # number -> bytes

    def place(self, number: int) -> tuple[Path, int]:
        """Where a piece is written: the file and the offset in it."""
        if number == 0 or number >= _MIN_OFFSET_NUMBER:
            return self.file, number
        return self.file.with_name(f"{self.file.name}.{number}"), 0


def receive_tar(
    stream: tar.ByteStream, folder: Path, staging: Path, names: MemberNames, told: DownloadProgress
) -> dict[str, int]:
    """Write a tar's files below a folder, where they appear when the tar was whole.

    Args:
        stream: the tar.
        folder: where the files go.
        staging: a folder on the same disk, emptied first, removed at the end.
        names: the names that are there already; the tar's are added.
        told: hears the bytes that came, and 0.

    Returns:
        Path below the folder -> bytes, of every file.

    Raises:
        tar.Cut: the stream, or the pieces of a file, ended too early.
        DataError: a damaged header, a name or kind that is refused, or a piece that came twice and differs.
        MachineError: the disk is full.
    """
    with disk_errors(folder):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        growing = _write_tar_members(stream, staging, names, told)
        for item in growing:
            _join_volumes(item, names.archive)
        for item in growing:
            target = folder / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            item.file.replace(target)
            fsync_path(target.parent)
        shutil.rmtree(staging, ignore_errors=True)
        return {item.path: sum(item.pieces.values()) for item in growing}


def _write_tar_members(
    stream: tar.ByteStream, staging: Path, names: MemberNames, told: DownloadProgress
) -> list[_GrowingFile]:
    growing: dict[str, _GrowingFile] = {}
    done = 0
    for member, contents in tar.iter_tar_members(stream, names.archive):
        if member.strange:
            raise names.refused(member.name, f"a kind that is not unpacked: it is {member.strange}")
        if member.folder:
            names.place(member.name, folder=True)
            continue
        check_unpacked_size(names.archive, member.size, member.size)
        check_disk_space(staging, member.size)
        part = PART_VOLUME_NAME.fullmatch(member.name)
        name, number = (part["name"], int(part["number"])) if part else (member.name, 0)
        if name not in growing:
            growing[name] = _GrowingFile(names.place(name), staging / str(len(growing)))
        for chunk in _write_volume(growing[name], number, member, contents, names.archive):
            done += chunk
            told(done, 0)
    return list(growing.values())


def _write_volume(
    item: _GrowingFile, number: int, member: tar.TarMember, contents: Iterator[bytes], archive: str
) -> Iterator[int]:
    """Write a piece, or compare it with the one that came before (the server has sent sets twice)."""
    path, offset = item.place(number)
    known = item.pieces.get(number)
    item.pieces.setdefault(number, member.size)
    differs = known is not None and known != member.size
    path.touch()
    with path.open("r+b") as file:
        file.seek(offset)
        for chunk in contents:
            if known is None:
                file.write(chunk)
            else:
                differs = differs or file.read(len(chunk)) != chunk
            yield len(chunk)
    if differs:
        raise DataError(
            f"{archive}: {member.name!r} came twice, and differs", "fetch it again; report it to AI-Hub"
        )


def _join_volumes(item: _GrowingFile, archive: str) -> None:
    """Put pieces that were set aside to their place, and see that none is missing."""
    numbers = sorted(item.pieces)
    sizes = [item.pieces[number] for number in numbers]
    if not is_complete_sequence(numbers, sizes):
        raise tar.Cut(
            f"{archive}: the pieces of {item.path} do not join (there are {numbers})", "fetch it again"
        )
    offset = 0
    item.file.touch()
    with item.file.open("r+b") as file:
        for number, size in zip(numbers, sizes, strict=True):
            aside, _ = item.place(number)
            if aside != item.file:
                file.seek(offset)
                with aside.open("rb") as piece:
                    shutil.copyfileobj(piece, file, tar.READ_CHUNK_BYTES)
                aside.unlink()
            offset += size
        file.flush()
        os.fsync(file.fileno())
