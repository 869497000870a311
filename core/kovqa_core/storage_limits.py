"""What is full when nothing more can be written: bytes, inodes, a quota, or the size of one file, and on which disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.errors import MachineError
from kovqa_core.messages import Message, message
from kovqa_core.soft_limit import soft_limit

STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHARED_MEMORY = Path("/dev/shm")
_FULL_BYTES = 1 << 20  # less than this is left where a write has just failed: the last block can stay free


def storage_error(
    path: Path, number: int | None = errno.ENOSPC, still_good: str = "", refused: object = None
) -> MachineError:
    """The error for a disk that takes no more.

    Args:
        path: what was being written.
        number: the system's error: ENOSPC, EDQUOT or EFBIG.
        still_good: what it has not harmed, for the message.
        refused: the file that the system names, where it does.
    """
    if number == errno.EDQUOT:
        text, hint = _quota_text(path)
    elif number == errno.EFBIG:
        text, hint = _file_size_text(path)
    else:
        text, hint = _full_text(
            path, Path(os.fsdecode(refused)) if isinstance(refused, (str, bytes)) else path
        )
    if still_good:
        text = message("files.disk-full-but", "{problem}; {still_good}", problem=text, still_good=still_good)
    return MachineError(text, hint)


def _quota_text(path: Path) -> tuple[Message, Message]:
    text = message(
        "files.quota",
        "your disk quota on {disk} is used up while writing {path}",
        path=path,
        disk=_mount_of(path),
    )
    return text, message("files.quota.hint", "see quota -s; remove files of yours there, or write elsewhere")


def _file_size_text(path: Path) -> tuple[Message, Message]:
    limit = soft_limit("RLIMIT_FSIZE")
    if limit is None:
        text = message(
            "files.larger-than-disk-takes", "the file system of {disk} takes no file as large as {path}",
            path=path, disk=_mount_of(path),
        )  # fmt: skip
        return text, message(
            "files.larger-than-disk-takes.hint", "write to another file system (FAT ends at 4 GB)"
        )
    text = message(
        "files.size-limit",
        "{path} would be larger than a file may be here: {limit:,} bytes (ulimit -f)", path=path, limit=limit,
    )  # fmt: skip
    return text, message("files.size-limit.hint", "raise the limit: ulimit -f unlimited")


def _full_text(path: Path, refused: Path) -> tuple[Message, Message]:
    """Which of the disks that may have been written to is full: that of the path, of $TMPDIR, or shared memory."""
    for folder, hint in _candidates(path, refused):
        free = shutil.disk_usage(folder).free
        # Before bytes: a write that fails for want of an inode has bytes left.
        if _inodes_full(folder):
            text = message(
                "files.inodes-full",
                "{disk} has no inode left for one more file, with {free:,} MB free, while writing {path}",
                path=path, disk=_mount_of(folder), free=free // 2**20,
            )  # fmt: skip
            return text, message("files.inodes-full.hint", "remove small files there (df -i shows the disk)")
        if free < _FULL_BYTES:
            if _device(folder) == _device(path):
                return message("files.disk-full", "disk full while writing {path}", path=path), hint
            text = message(
                "files.other-disk-full", "{disk} is full while writing {path}", path=path, disk=folder
            )
            return text, hint
    return message("files.disk-full", "disk full while writing {path}", path=path), message(
        "files.disk-full.hint", "free some space"
    )


def _inodes_full(folder: Path) -> bool:
    if not hasattr(os, "statvfs"):  # Windows counts bytes alone
        return False
    status = os.statvfs(folder)
    return bool(status.f_files) and status.f_favail == 0


def _candidates(path: Path, refused: Path) -> Iterator[tuple[Path, Message]]:
    """Folders on the disks that may be full, each with what to do about it."""
    for each in (refused, path):
        yield _existing(each), message("files.disk-full.hint", "free some space")
    # Not tempfile.gettempdir(): it writes a file to try a folder, and passes over a full one.
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    if temporary.is_dir():
        yield (
            temporary,
            message(
                "files.temporary-full.hint",
                "free some space there, or set TMPDIR to a folder on another disk",
            ),
        )
    if _SHARED_MEMORY.is_dir():
        yield (
            _SHARED_MEMORY,
            message("files.shared-memory-full.hint", "give the container more: docker run --shm-size=8g"),
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next((each for each in (path.absolute(), *path.absolute().parents) if each.exists()), Path.cwd())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev


def _mount_of(path: Path) -> Path:
    """The folder at which the disk of a path begins, by `df`'s word for it."""
    folder = _existing(path).resolve()
    while folder.parent != folder and folder.parent.stat().st_dev == folder.stat().st_dev:
        folder = folder.parent
    return folder
