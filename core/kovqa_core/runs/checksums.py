"""Checksums of a step folder: SHA-256 of every file, in `trainer/files.json` beside the sizes.

A disk, a copy or a cable that changes one bit of a weight changes no size, and nothing fails: only a worse model
would say it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.files import file_sha256, fsync_path
from kovqa_core.runs.step_folders import (
    FILE_LIST,
    WRITTEN_AGAIN,
    FileList,
    missing_checkpoint_files,
    read_file_list,
    write_file_list,
)

_THREADS = 4  # a step folder has two or three large files
_LIST_NAME = f"trainer/{FILE_LIST}"


def note_files(step: Path) -> None:
    """Note in `trainer/` which files a step folder has: sizes of those that are never written again, and checksums.

    Args:
        step: the folder, complete but for this list.

    Raises:
        DataError: a file cannot be read.
        OSError: the list cannot be written.
    """
    names = sorted(path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file())
    names = [name for name in names if name != _LIST_NAME]
    # hashlib and fsync let other threads run: the disk takes the files while they are hashed from memory, so
    # that hashing costs little where the disk is the slower one.
    with ThreadPoolExecutor(2 * _THREADS) as pool:
        flushed = pool.map(fsync_path, [step / name for name in names])
        checksums = {
            name: (digest,)
            for name, digest in zip(names, pool.map(file_sha256, [step / n for n in names]), strict=True)
        }
        list(flushed)
    sizes = {name: None if name in WRITTEN_AGAIN else (step / name).stat().st_size for name in names}
    write_file_list(step, FileList(sizes, checksums, has_checksums=True))


def allow_contents(step: Path, contents: Mapping[str, bytes]) -> None:
    """Note further checksums, before files are written again; nothing where an earlier version noted none.

    Args:
        step: the folder.
        contents: what will be written, by name.

    Raises:
        DataError: the list is damaged.
    """
    files = read_file_list(step)
    if files is None or not files.has_checksums:
        return
    checksums = dict(files.checksums)
    for name, content in contents.items():
        checksums[name] = tuple(dict.fromkeys((*checksums[name], hashlib.sha256(content).hexdigest())))
    write_file_list(step, replace(files, checksums=checksums))


def has_checksums(step: Path) -> bool:
    """Were checksums noted when the folder was written?

    Raises:
        DataError: the list is damaged.
    """
    files = read_file_list(step)
    return files is not None and files.has_checksums


def damaged_files(step: Path, on_bytes: Callable[[int], object] = lambda count: None) -> list[str]:
    """Files of a step folder that are not what was written: names, sorted; lacking and cut-off ones too.

    Every byte is read. A folder without checksums is judged by names and sizes alone.

    Args:
        step: the folder.
        on_bytes: called with the size of each file that was read.

    Raises:
        DataError: the list of its files is damaged.
    """
    missing = missing_checkpoint_files(step)
    files = read_file_list(step)
    if files is None or not files.has_checksums:
        return missing
    names = [name for name in files.checksums if name not in missing]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        digests = pool.map(lambda name: _digest_or_none(step / name, on_bytes), names)
        changed = _changed(zip(names, digests, strict=True), files)
    return sorted({*missing, *changed})


def _changed(digests: Iterable[tuple[str, str | None]], files: FileList) -> list[str]:
    return [name for name, digest in digests if digest not in files.checksums[name]]


def _digest_or_none(path: Path, on_bytes: Callable[[int], object]) -> str | None:
    try:
        digest = file_sha256(path)
        on_bytes(path.stat().st_size)
    except DataError:  # a bad sector, no permission: it is not what was written
        return None
    return digest
