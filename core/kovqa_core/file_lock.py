"""The system's own lock on a file, flock(2): it ends with its process, however that ends.

Linux carries it over NFS as a byte-range lock, so hosts that share a disk exclude each other too. Windows has
`msvcrt.locking`, which is as good on one machine, and knows no shared locks.

Not filelock, which huggingface_hub brings: it empties a file before it holds it, and these hold who has them, or
the bytes of an output; it has no shared locks, and takes no file that is open.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # the file system has none
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
# Windows keeps others from reading the byte that is locked: one that no file has.
_LOCKED_BYTE = 0x7FFF_FFFF
# Never through a link: whoever may write into the folder could lead us to any file. O_NONBLOCK: a named pipe.
SAFE_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file, without waiting, until it is closed.

    Args:
        descriptor: of the file.
        shared: beside others who share it. Windows has no such locks: nothing is locked then, and only a training
            is kept out by one, which does not run there.

    Returns:
        Was it given? Else another one holds it.

    Raises:
        OSError: one of `NO_LOCKS`, or a fault of the file system.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        elif not shared:
            _lock_byte(descriptor)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def _lock_byte(descriptor: int) -> None:
    msvcrt: Any = importlib.import_module("msvcrt")  # Windows alone has it
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def lock_file(path: Path) -> int | None:
    """Open a file, made where it is missing, and lock it.

    Returns:
        The descriptor, which holds the lock until it is closed; None: another one holds it.

    Raises:
        OSError: it cannot be opened; one of `NO_LOCKS`.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | SAFE_FLAGS, 0o666)
        try:
            is_ours = try_lock(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if not is_ours:
            os.close(descriptor)
            return None
        # Between our open and our lock its holder may have removed or renamed it: a lock on a file that nobody
        # else can open holds nothing. By inode, not by the number of links: NFS keeps a removed file that is
        # open under another name, with one link.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        os.close(descriptor)


def remove_locked_file(path: Path, descriptor: int) -> None:
    """Give up the lock of `lock_file`, and remove its file."""
    if (
        fcntl is None
    ):  # Windows removes no file that is open: not this one, nor one that another has opened since
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return
    # Removed while it is held: a moment later the file could be another process's. One that waits on the
    # removed file notices (`lock_file`) and makes a new one.
    path.unlink(missing_ok=True)
    os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Does a process hold the lock of a file? No where there is no such file, or it cannot be asked."""
    try:
        descriptor = os.open(path, (os.O_RDWR if fcntl is None else os.O_RDONLY) | SAFE_FLAGS)
    except OSError:
        return False
    try:
        return not try_lock(descriptor, shared=fcntl is not None)  # beside others who look
    except OSError:
        return False
    finally:
        os.close(descriptor)
