"""The system's own lock on a file, flock(2): it ends with its process, however that ends.

Linux carries it over NFS as a byte-range lock, so hosts that share a disk exclude each other too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # the file system has none
_HELD = (errno.EAGAIN, errno.EACCES)
# Never through a link: whoever may write into the folder could lead us to any file. O_NONBLOCK: a named pipe.
_SAFE_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))


def lock_file(path: Path) -> int | None:
    """Open a file, made where it is missing, and lock it.

    Returns:
        The descriptor, which holds the lock until it is closed; None: another one holds it.

    Raises:
        OSError: it cannot be opened; one of `NO_LOCKS`.
    """
    if sys.platform == "win32":  # has no flock
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(path))
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE_FLAGS, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _HELD:
                return None
            raise
        # Between our open and our lock its holder may have removed or renamed it: a lock on a file that nobody
        # else can open holds nothing. By inode, not by the number of links: NFS keeps a removed file that is
        # open under another name, with one link.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Does a process hold the lock of a file? No where there is no such file, or it cannot be asked."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFE_FLAGS)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # beside others who look
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(descriptor)
    return False
