"""AI-Hub's tar, written as it comes: each volume goes straight to its offset in the final file.

The official shell keeps the tar, the volumes and the joined file, three times the size; here the
bytes are on the disk once. Source: docs/sources/datasets.md, D9.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.data import tar_stream as tar
from kovqa_core.download.members import MemberNames, check_disk_space, check_unpacked_size
from kovqa_core.download.split_archive import PART_VOLUME_NAME, is_complete_sequence
from kovqa_core.errors import DataError
from kovqa_core.files import disk_errors, fsync_path
from kovqa_core.messages import message

# AI-Hub cuts at 1 GiB and numbers volumes by their byte offset; some old sets count 0, 1, 2. A number
# from here on is an offset and its volume is written at it; below, the end of the tar decides.
_MIN_OFFSET_NUMBER = 1 << 16


@dataclass
class _GrowingFile:
    """A file whose volumes are coming."""

    path: str  # below the folder, at the end
    file: Path  # until then
    volumes: dict[int, int] = field(default_factory=dict)  # number -> bytes

    def volume_place(self, number: int) -> tuple[Path, int]:
        """Where a volume is written: the file and the offset in it."""
        if number == 0 or number >= _MIN_OFFSET_NUMBER:
            return self.file, number
        return self.file.with_name(f"{self.file.name}.{number}"), 0


def receive_tar(
    stream: tar.ByteStream, folder: Path, staging: Path, names: MemberNames, on_bytes: Callable[[int], None]
) -> dict[str, int]:
    """Write a tar's files below a folder, where they appear when the tar was whole.

    Args:
        stream: the tar.
        folder: where the files go.
        staging: a folder on the same disk, emptied first, removed at the end.
        names: the names taken already; the tar's are added.
        on_bytes: called with the bytes written so far.

    Returns:
        Path below the folder -> bytes, of every file.

    Raises:
        tar.TarCutShort: the stream, or the volumes of a file, ended too early.
        DataError: a damaged header, a name or type that is refused, or a volume that came twice and differs.
        MachineError: the disk is full.
    """
    with disk_errors(folder):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        # All volumes are checked before the first file moves: a tar that was cut leaves the folder as it was.
        growing = _write_tar_members(stream, staging, names, on_bytes)
        for item in growing:
            _join_volumes(item, names.archive)
        for item in growing:
            target = folder / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            item.file.replace(target)
            fsync_path(target.parent)
        shutil.rmtree(staging, ignore_errors=True)
        return {item.path: sum(item.volumes.values()) for item in growing}


def _write_tar_members(
    stream: tar.ByteStream, staging: Path, names: MemberNames, on_bytes: Callable[[int], None]
) -> list[_GrowingFile]:
    growing: dict[str, _GrowingFile] = {}
    done = 0
    for member, contents in tar.iter_tar_members(stream, names.archive):
        if member.strange_type:
            raise names.refused_type(member.name, member.strange_type)
        if member.folder:
            names.claim_path(member.name, folder=True)
            continue
        # A tar is not packed, so the ratio says nothing; this is about the largest size that can be true.
        check_unpacked_size(names.archive, member.size, member.size)
        check_disk_space(staging, member.size)
        volume = PART_VOLUME_NAME.fullmatch(member.name)
        name, number = (volume["name"], int(volume["number"])) if volume else (member.name, 0)
        if name not in growing:
            growing[name] = _GrowingFile(names.claim_path(name), staging / str(len(growing)))
        for chunk in _write_volume(growing[name], number, member, contents, names.archive):
            done += chunk
            on_bytes(done)
    return list(growing.values())


def _write_volume(
    item: _GrowingFile, number: int, member: tar.TarMember, contents: Iterator[bytes], archive: str
) -> Iterator[int]:
    """Write a volume, or compare it with the one that came before (the server has sent sets twice)."""
    path, offset = item.volume_place(number)
    known_size = item.volumes.get(number)
    item.volumes.setdefault(number, member.size)
    differs = known_size is not None and known_size != member.size
    path.touch()  # "r+b" needs it; "wb" would empty what earlier volumes wrote
    with path.open("r+b") as file:
        file.seek(offset)
        for chunk in contents:
            if known_size is None:
                file.write(chunk)
            else:
                differs = differs or file.read(len(chunk)) != chunk
            yield len(chunk)
    if differs:
        raise DataError(
            message(
                "download.volume-differs",
                "{archive}: {member!r} came twice, and differs",
                archive=archive,
                member=member.name,
            ),
            message("download.volume-differs.hint", "fetch it again; report it to AI-Hub"),
        )


def _join_volumes(item: _GrowingFile, archive: str) -> None:
    """Append the volumes that were set aside, and see that none is missing."""
    numbers = sorted(item.volumes)
    sizes = [item.volumes[number] for number in numbers]
    if not is_complete_sequence(numbers, sizes):
        raise tar.TarCutShort(
            message(
                "download.aihub-volumes-incomplete",
                "{archive}: the volumes of {path} do not join (there are {numbers})",
                archive=archive,
                path=item.path,
                numbers=numbers,
            ),
            message("download.fetch-again.hint", "fetch it again"),
        )
    offset = 0
    item.file.touch()
    with item.file.open("r+b") as file:
        for number, size in zip(numbers, sizes, strict=True):
            # Those numbered by offset are at their place already.
            aside, _ = item.volume_place(number)
            if aside != item.file:
                file.seek(offset)
                with aside.open("rb") as volume:
                    shutil.copyfileobj(volume, file, tar.READ_CHUNK_BYTES)
                aside.unlink()
            offset += size
        file.flush()
        os.fsync(file.fileno())
