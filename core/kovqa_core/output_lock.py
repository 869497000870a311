"""One process at a time writes an output, also where several hosts share the disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import SettingsError
from kovqa_core.files import disk_errors, real_path
from kovqa_core.messages import Message, message, shell_quote

WAIT_SECONDS = 20.0  # a short job is waited for, a long one is named
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def output_lock(
    output: Path,
    wait_seconds: float = WAIT_SECONDS,
    on_wait: Callable[[Message], object] = lambda holder: None,
) -> Iterator[None]:
    """Hold an output file or folder, which need not exist yet, while it is written.

    The system's own lock (flock) on `.NAME.lock` beside the output is taken: it ends with its process,
    however that ends, so a lock file that a killed process left behind blocks nobody. Linux carries
    flock over NFS as a byte-range lock, so hosts that share a disk exclude each other too (flock(2)).

    Args:
        output: what is written; of a link, what it points to.
        wait_seconds: how long another process may still hold it; -1: for ever.
        on_wait: called once with who holds it, before waiting.

    Raises:
        SettingsError: another process holds it for longer (which one, on which host); it cannot be written.
    """
    path = lock_file_of(real_path(output))
    lock = FileLock(path, fallback_to_soft=False)
    with disk_errors(output):
        path.parent.mkdir(parents=True, exist_ok=True)
        if _acquire(lock, output, path, wait_seconds, on_wait):
            path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
    try:
        yield
    finally:
        if lock.is_locked:
            # Removed while it is held: a moment later the file could be another process's. One that waits
            # on the removed file notices (filelock compares inode and name) and makes a new one.
            path.unlink(missing_ok=True)
            lock.release()


def _acquire(
    lock: FileLock, output: Path, path: Path, wait_seconds: float, on_wait: Callable[[Message], object]
) -> bool:
    """Take the lock; False where the file system has no locks."""
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(_name_holder(output, path))
            lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise SettingsError(
            _name_holder(output, path),
            message("output_lock.held.hint", "wait until it has ended, or choose another -o"),
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        text = message(
            "output_lock.no-locks",
            "kovqa: warning: this file system has no locks: no second process may write {output} now",
            output=output,
        )
        print(text, file=sys.stderr)
        return False
    return True


def lock_file_of(output: Path) -> Path:
    """The lock's file: beside the output, because a folder is replaced as a whole."""
    return output.with_name(f".{output.name}.lock")


def _name_holder(output: Path, path: Path) -> Message:
    name = shell_quote(output)
    try:
        holder = parse_json(path.read_text(encoding="utf-8"))
        return message(
            "output_lock.held",
            "process {pid} on {host} is writing {output}",
            pid=holder["pid"],
            host=holder["host"],
            output=name,
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has begun, or ended, at this moment
        return message("output_lock.held-by-another", "another process is writing {output}", output=name)
