"""One process at a time writes an output, also where several hosts share the disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import SettingsError
from kovqa_core.file_lock import NO_LOCKS, is_locked, lock_file, remove_locked_file
from kovqa_core.files import disk_errors, real_path
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.messages.languages import show_text
from kovqa_core.system_support import owner_id

WAIT_SECONDS = 20.0  # a short job is waited for, a long one is named
_RETRY_SECONDS = 0.05
_SCRATCH_PREFIX = "kovqa-scratch-"


@contextlib.contextmanager
def output_lock(
    output: Path,
    wait_seconds: float = WAIT_SECONDS,
    on_wait: Callable[[Message], object] = lambda holder: None,
) -> Iterator[None]:
    """Hold an output file or folder, which need not exist yet, while it is looked at and written.

    The lock (`file_lock`) is on `.NAME.lock` beside the output: a lock file that a killed process left behind blocks
    nobody. Who writes a folder excludes those who write something inside it, and the other way round.

    Args:
        output: what is written; of a link, what it points to.
        wait_seconds: how long another process may still hold it; -1: for ever.
        on_wait: called once with who holds it, before waiting.

    Raises:
        SettingsError: another process holds it for longer (which one, on which host); it cannot be written.
    """
    target = real_path(output)
    path = lock_file_of(target)
    with disk_errors(output):  # by the name that the user knows
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(target, path, wait_seconds, on_wait)
    try:
        yield
    finally:
        if descriptor is not None:
            remove_locked_file(path, descriptor)


def lock_file_of(output: Path) -> Path:
    """The lock's file: beside the output, because a folder is replaced as a whole.

    Raises:
        SettingsError: the root of the file system, which has no place beside it.
    """
    if not output.name:
        raise SettingsError(
            message("output_lock.no-name", "cannot write {output}", output=output),
            message("output_lock.no-name.hint", "name a file or folder inside it with -o"),
        )
    return output.with_name(f".{output.name}.lock")


def _acquire(
    output: Path, path: Path, wait_seconds: float, on_wait: Callable[[Message], object]
) -> int | None:
    """The locked file; None where the file system has no locks."""
    began, is_first = time.monotonic(), True
    try:
        while True:
            descriptor, holder = lock_file(path), path
            if descriptor is not None:
                os.truncate(descriptor, 0)
                os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                nearby = _find_nearby_lock(output)
                if nearby is None:
                    return descriptor
                holder = nearby
                remove_locked_file(path, descriptor)
            if 0 <= wait_seconds <= time.monotonic() - began:
                raise SettingsError(
                    _name_holder(holder),
                    message("output_lock.held.hint", "wait until it has ended, or choose another -o"),
                )
            if is_first:
                on_wait(_name_holder(holder))
            is_first = False
            time.sleep(_RETRY_SECONDS * random.uniform(0.5, 1.5))  # two that give way to each other
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        text = message(
            "output_lock.no-locks",
            "kovqa: warning: this file system has no locks: no second process may write {output} now",
            output=output,
        )
        print(show_text(text), file=sys.stderr)
        return None


def _find_nearby_lock(output: Path) -> Path | None:
    """The held lock of a folder around the output, or of something inside it; looked at with our own lock held.

    Of two that begin at the same moment at least one sees the other.
    """
    around = (lock_file_of(folder) for folder in output.parents if folder.name)
    inside = (
        Path(place, name)
        for place, _, names in os.walk(output)
        for name in names
        if name.startswith(".") and name.endswith(".lock")
    )
    return next((path for paths in (around, inside) for path in paths if is_locked(path)), None)


def _name_holder(path: Path) -> Message:
    """Who holds a lock, by its file."""
    output = shell_quote(
        str(path.with_name(path.name[1:].removesuffix(".lock")) if path.name != ".lock" else path.parent)
    )
    try:
        holder = parse_json(path.read_text(encoding="utf-8"))
        return message(
            "output_lock.held",
            "process {pid} on {host} is writing {output}",
            pid=holder["pid"],
            host=holder["host"],
            output=output,
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has begun, or ended, at this moment
        return message("output_lock.held-by-another", "another process is writing {output}", output=output)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what is thrown away, in the system's folder for such; what killed processes left there goes too."""
    root = Path(tempfile.gettempdir())
    for path in root.glob(f".{_SCRATCH_PREFIX}*.lock"):
        _remove_stale_scratch(path)
    folder = root / f"{_SCRATCH_PREFIX}{os.urandom(8).hex()}"
    # The lock first: a folder without one would be taken for a dead process's.
    with output_lock(folder):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_scratch(path: Path) -> None:
    """Remove the scratch folder of a process that is gone, by the lock's file."""
    with contextlib.suppress(OSError):
        if path.lstat().st_uid == owner_id() and (descriptor := lock_file(path)) is not None:
            shutil.rmtree(path.with_name(path.name[1:].removesuffix(".lock")), ignore_errors=True)
            remove_locked_file(path, descriptor)
