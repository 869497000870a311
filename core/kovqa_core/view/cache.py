"""Where databases are kept: `kovqa/view` in the user's cache folder, a few of them, named by what they were made of.

A database is built in a folder of its own and appears by one rename; whoever has opened an old one keeps it. Two
`kovqa view` of the same files may both build it: the later one replaces the same contents. What a killed one leaves is
removed by the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.file_lock import is_locked, lock_file
from kovqa_core.files import disk_errors
from kovqa_core.paths import cache_home
from kovqa_core.view.inputs import ViewInputs

MAX_DATABASES = 8
MAX_BYTES = 4 << 30  # of all of them; the newest stays, whatever its size
_FORMAT = 1  # of the database: raised whenever its tables or the scores in them change
_BUILD_PREFIX = "kovqa-view-"
_LOCK_FILE = "lock"


def cache_folder() -> Path:
    """The folder of the databases; it need not be there yet."""
    return cache_home() / "kovqa" / "view"


def database_key(inputs: ViewInputs) -> str:
    """What a database is known by: its files by path, size and times, and how answers are scored."""
    import duckdb

    from kovqa_core import __version__

    files = [*(split.path for split in inputs.splits.values()), *inputs.predictions]
    rules = inputs.rules
    parts = [
        _FORMAT, __version__, duckdb.__version__, list(inputs.splits), inputs.named_split, inputs.task,
        [_file_state(path) for path in files], rules.rule, rules.protocol, list(rules.question_types),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _file_state(path: Path) -> list[object]:
    state = path.stat()
    # The time of change as well: a copy with the old file's size and date is another file.
    return [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def find_database(key: str) -> Path | None:
    """A database that was built before; it becomes the newest."""
    path = cache_folder() / f"{key}.duckdb"
    try:
        os.utime(path)
    except OSError:
        return None
    return path


@contextlib.contextmanager
def build_folder(parent: Path) -> Iterator[Path]:
    """A folder of this process alone, removed in the end; what killed processes left beside it is removed now.

    Args:
        parent: where.

    Raises:
        MachineError: the disk is full.
        SettingsError: the folder cannot be written.
    """
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_abandoned(parent)
        folder_path = Path(tempfile.mkdtemp(prefix=_BUILD_PREFIX, dir=parent))
        lock = _lock_folder(folder_path)
    try:
        yield folder_path
    finally:
        shutil.rmtree(folder_path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    try:
        return lock_file(folder / _LOCK_FILE)
    except OSError:  # a file system without locks
        return None


def _remove_abandoned(parent: Path) -> None:
    """Remove what killed processes left: the folders that nobody holds."""
    for folder in parent.glob(f"{_BUILD_PREFIX}*"):
        # Without a lock's file it is being made right now, or its file system has none.
        with contextlib.suppress(OSError):  # another user's
            if (folder / _LOCK_FILE).is_file() and not is_locked(folder / _LOCK_FILE):
                shutil.rmtree(folder, ignore_errors=True)


def keep_database(built: Path, key: str) -> Path:
    """Move a finished database into the cache, and remove the oldest ones that are too many.

    Args:
        built: in a `build_folder` of the cache.
        key: of `database_key`.
    """
    kept = cache_folder() / f"{key}.duckdb"
    with disk_errors(kept):
        built.replace(kept)
    _remove_oldest(kept)
    return kept


def _remove_oldest(newest: Path) -> None:
    others = [path for path in newest.parent.glob("*.duckdb") if path != newest]
    others.sort(key=_age)
    number, total = 1, newest.stat().st_size
    for path in others:
        with contextlib.suppress(OSError):
            number, total = number + 1, total + path.stat().st_size
            if number > MAX_DATABASES or total > MAX_BYTES:
                path.unlink()


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
