"""Folders that appear whole or not at all.

    .NAME.part   the new folder while it is filled, beside NAME
    .NAME.old    the one that is replaced, between two renames

Nobody else may be writing the folder (`output_lock`): then what lies there under these names is a killed process's.
"""

from __future__ import annotations

import contextlib
import filecmp
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.files import disk_errors, fsync_path, real_path
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, Progress, ignore_progress


def write_folder(path: Path, fill: Callable[[Path], None], still_good: str = "") -> None:
    """Write a folder that appears complete or not at all; one that is there is replaced.

    Nobody else may be writing it (`output_lock`): what killed processes left of it is removed.

    Args:
        path: the folder; where it is a link, what it points to.
        fill: puts the files into the folder it is called with.
        still_good: see `disk_errors`.

    Raises:
        MachineError: the disk is full.
        SettingsError: the path cannot be written.
        Exception: what `fill` raises; nothing has changed then.
    """
    path = real_path(path)
    with disk_errors(path, still_good), _filled_folder(path, fill, still_good) as partial_folder:
        # A folder with files in it cannot be replaced by one rename. Between the two the name is
        # missing; whoever is killed there has lost nothing: the next one brings the old folder back.
        old = _old_folder(path)
        try:
            if path.exists():
                path.rename(old)
            partial_folder.rename(path)
        except BaseException:  # Ctrl-C too
            _bring_back(old, path)
            raise
        _remove(old)
        fsync_path(path.parent)


def write_new_folder(
    path: Path, fill: Callable[[Path], None], on_progress: OnProgress = ignore_progress
) -> None:
    """Write a folder that does not exist or is empty, or already is what would be written, byte by byte.

    So the command that was killed when its folder was finished can be typed again. See `write_folder`.

    Args:
        on_progress: called with a note where it is there already.

    Raises:
        SettingsError: the folder holds something else, and stays as it is.
    """
    path = real_path(path)
    with disk_errors(path), _filled_folder(path, fill) as partial_folder:
        if not _is_taken(path):
            partial_folder.rename(path)  # over an empty folder, too
            fsync_path(path.parent)
        elif path.is_dir() and _have_same_files(path, partial_folder):
            note_unchanged(path, on_progress)
        else:
            raise _not_empty_error(path)


def note_unchanged(path: Path, on_progress: OnProgress) -> None:
    """Say that a file or folder already is what would be written."""
    text = message("files.unchanged", "{path} is there already, byte by byte: it stays as it is", path=path)
    on_progress(Progress(text, is_note=True))


@contextlib.contextmanager
def _filled_folder(path: Path, fill: Callable[[Path], None], still_good: str = "") -> Iterator[Path]:
    """The unfinished folder `.NAME.part` beside a folder, filled and on the disk; gone at the end."""
    partial_folder, old = path.with_name(f".{path.name}.part"), _old_folder(path)
    _bring_back(old, path)
    _remove(old)
    try:
        _remove(partial_folder)
        partial_folder.mkdir(parents=True)
        with disk_errors(path, still_good):  # before what it takes of the disk is given back
            fill(partial_folder)
        for inside in sorted(partial_folder.rglob("*"), reverse=True):
            fsync_path(inside)
        fsync_path(partial_folder)
        yield partial_folder
    finally:
        _remove(partial_folder)


def _old_folder(path: Path) -> Path:
    """Where a folder is while another one takes its name: hidden, for NAME.old may be the user's own copy."""
    return path.with_name(f".{path.name}.old")


def _bring_back(old: Path, path: Path) -> None:
    if old.exists() and not path.exists():
        old.rename(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _have_same_files(folder: Path, other: Path) -> bool:
    names = [
        sorted(path.relative_to(each) for path in each.rglob("*") if not path.is_dir())
        for each in (folder, other)
    ]
    return names[0] == names[1] and all(
        filecmp.cmp(folder / name, other / name, shallow=False) for name in names[0]
    )


def require_new_folder(folder: Path, may_be_same: Callable[[Path], bool]) -> None:
    """Check, before hours of work, that `write_new_folder` may write a folder.

    Args:
        folder: the folder.
        may_be_same: a quick look: could a folder that holds something be what would be written?

    Raises:
        SettingsError: it is a file, or holds something else.
    """
    with disk_errors(folder):
        if _is_taken(folder) and not (folder.is_dir() and may_be_same(folder)):
            raise _not_empty_error(folder)


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _not_empty_error(folder: Path) -> SettingsError:
    return SettingsError(
        message("files.not-empty", "{folder} is not empty", folder=folder),
        message("files.other-folder.hint", "choose another folder with -o"),
    )
