"""Windows' module `msvcrt`, as far as kovqa asks it, by Linux's locks that belong to an open file."""

from __future__ import annotations

import fcntl
import os
import struct

LK_UNLCK, LK_NBLCK = 0, 2
_F_OFD_SETLK = 37  # of Linux: as a Windows lock, it ends with the open file and not with the process


def locking(handle: int, mode: int, size: int) -> None:
    """Some bytes of an open file, from where it stands; OSError where another open file has them."""
    kind = fcntl.F_UNLCK if mode == LK_UNLCK else fcntl.F_WRLCK
    begin = os.lseek(handle, 0, os.SEEK_CUR)
    fcntl.fcntl(handle, _F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, begin, size, 0))
