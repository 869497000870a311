"""One run at a time in a run folder, also where several hosts share it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from kovqa_core.errors import SettingsError

LOCK_FILE = ".lock"
_LOCAL_WAIT_SECONDS = 20.0  # seconds an earlier run's processes have to end
_REMOTE_WAIT_SECONDS = 120.0  # the same on another host: NFS gives up a dead client's locks after 90 seconds
_LOCKING_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def acquire_run_lock(folder: Path, environ: Mapping[str, str]) -> IO[str]:
    """Hold a run folder until this process ends; the first process of a run does.

    The system's own lock is taken: it ends with its process, and over NFS with its host. Where a server
    keeps the lock of a dead host for ever, the file says who held it: a SLURM job that was queued again
    takes over from itself, because a job runs once at a time.

    Raises:
        SettingsError: another run goes on in this folder.
    """
    path, job = folder / LOCK_FILE, environ.get("SLURM_JOB_ID", "")
    me = {"host": socket.gethostname(), "pid": os.getpid(), "job": job}
    began = time.monotonic()
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKING_UNSUPPORTED:
                print(f"kovqa: {folder} cannot be locked here: see that one run uses it", file=sys.stderr)
                return stream
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            _wait_for_holder(path, me, began)
            continue
        if _is_same_file(stream, path):
            stream.truncate(0)
            stream.write(json.dumps(me))
            stream.flush()
            return stream


def _wait_for_holder(path: Path, me: Mapping[str, object], began: float) -> None:
    """What to do about somebody else's lock: wait a little, take it over, or give up."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        holder = {}  # taken at this moment
    waited = time.monotonic() - began
    if me["job"] and holder.get("job") == me["job"] and waited > _LOCAL_WAIT_SECONDS:
        path.unlink(missing_ok=True)
        return
    if waited > (_LOCAL_WAIT_SECONDS if holder.get("host") in (None, me["host"]) else _REMOTE_WAIT_SECONDS):
        who = f" (process {holder['pid']} on {holder['host']})" if holder else ""
        raise SettingsError(
            f"another run is training in {path.parent}{who}",
            f"wait for it, or choose another -o; if that host is gone for good, remove {path}",
        )
    time.sleep(0.5)


def _is_same_file(stream: IO[str], path: Path) -> bool:
    """Is the file that was locked the one that others see?"""
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
