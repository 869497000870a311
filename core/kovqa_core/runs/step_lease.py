"""A step folder is not removed while somebody reads it.

A training removes its older step folders, and beside it `predict` may be loading one. A reader holds a shared lock
on a file of the folder; whoever removes asks for an exclusive one, and lets the folder be if it does not get it. The
system's own locks: they end with their process. Linux carries flock over NFS as a byte-range lock, for which a
reader needs no permission to write; where there are no locks, the reader finds out that its folder is gone, and
takes the next (`read_found_step`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from kovqa_core.errors import KovqaError
from kovqa_core.file_lock import try_lock
from kovqa_core.system_support import MOVES_OPEN_FILES

# Never written again, so that the lock stays with the name. A folder without its `trainer/` is locked itself, which
# is as good on one host.
_LOCKED_FILE = Path("trainer", "optimizer.safetensors")
_RETRY_SECONDS = 0.05
_MAX_TRIES = 20  # a training that removes a step folder has written another one before
Loaded = TypeVar("Loaded")


@contextlib.contextmanager
def hold_step_folder(step: Path) -> Iterator[bool]:
    """Keep a step folder, if it is still there, from being removed by a training.

    Returns:
        Is it there? Where a file system has no locks, it may go all the same.
    """
    handle = _open_locked_file(step, os.O_RDONLY)
    if handle is None:
        yield step.exists()
        return
    try:
        held = _lock(handle, shared=True)
        yield held and step.exists()
    finally:
        os.close(handle)


def remove_unread_step(step: Path) -> bool:
    """Remove a step folder that nobody holds.

    It loses its name first: killed meanwhile, no half of it looks like a checkpoint. A resume clears what is left then.

    Returns:
        Is it gone?
    """
    handle = _open_locked_file(step, os.O_RDWR)
    try:
        if handle is not None and not _lock(handle, shared=False):
            return False
        if handle is not None and not MOVES_OPEN_FILES:  # nor a folder with one in it
            os.close(handle)
            handle = None
        going = step.with_name(f".{step.name}.old")  # hidden: NAME.old may be the user's own copy
        shutil.rmtree(going, ignore_errors=True)
        with contextlib.suppress(OSError):
            step.rename(going)
        shutil.rmtree(going, ignore_errors=True)
    finally:
        if handle is not None:
            os.close(handle)
    return not step.exists()


def is_step_read(step: Path) -> bool:
    """Does somebody hold a step folder who reads it?"""
    handle = _open_locked_file(step, os.O_RDWR)
    if handle is None:
        return False
    try:
        return not _lock(handle, shared=False)
    finally:
        os.close(handle)


def _open_locked_file(step: Path, flags: int) -> int | None:
    for path, mode in ((step / _LOCKED_FILE, flags), (step, os.O_RDONLY)):
        with contextlib.suppress(OSError):
            return os.open(path, mode | getattr(os, "O_CLOEXEC", 0))
    return None


def _lock(handle: int, *, shared: bool) -> bool:
    """Was the lock given, or are there no locks here?"""
    try:
        return try_lock(handle, shared=shared)
    except OSError:
        return True


@contextlib.contextmanager
def hold_found_step(find: Callable[[], Path]) -> Iterator[Path]:
    """Keep the step folder that `find` finds; where it goes in between, the next that it finds.

    Raises:
        KovqaError: what `find` raises.
    """
    for left in reversed(range(_MAX_TRIES)):
        step = find()
        with hold_step_folder(step) as is_there:
            if is_there or not left:  # reading it says best what is wrong
                yield step
                return
        time.sleep(_RETRY_SECONDS)


def read_found_step(find: Callable[[], Path], read: Callable[[Path], Loaded]) -> Loaded:
    """Read a step folder of a run that may be training; where there are no locks and it goes meanwhile, the next.

    Args:
        find: finds the step folder.
        read: reads it, while it is held.

    Raises:
        KovqaError: what `find` raises; what `read` raises of a folder that is still there.
    """
    for left in reversed(range(_MAX_TRIES)):
        with hold_found_step(find) as step:
            try:
                return read(step)
            except (OSError, KovqaError):
                if not left or step.exists():
                    raise
        time.sleep(_RETRY_SECONDS)
    raise AssertionError  # the last try returns or raises
