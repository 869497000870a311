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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

LOCK_FILE = ".lock"
_LOCAL_WAIT_SECONDS = 20.0  # an earlier run's processes have so long to end
_REMOTE_WAIT_SECONDS = (
    120.0  # ... on another host: an NFS server frees a dead client's locks after 90 seconds
)
_RETRY_SECONDS = 0.5
_LOCKING_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class LockHolder:
    """Who holds a run folder, as the lock file says; `job` is "" outside of SLURM."""

    host: str
    pid: int
    job: str


def acquire_run_lock(folder: Path, environ: Mapping[str, str]) -> IO[str]:
    """Hold a run folder until this process ends; the first process of a run does.

    The system's own lock is taken: it ends with its process, and over NFS with its host. Where a server
    keeps the lock of a dead host for ever, the file says who held it: a SLURM job that was queued again
    takes over from itself, because a job runs once at a time.

    fcntl and not filelock (as `output_lock` has): `runs.folder.is_run_active` looks with a shared lock, which
    filelock does not have; looking with an exclusive one could refuse a run that starts at that moment.

    Args:
        folder: of the run.
        environ: for the number of the SLURM job.

    Returns:
        The locked file; closing it gives the lock up.

    Raises:
        SettingsError: another run is training in this folder.
    """
    path = folder / LOCK_FILE
    holder = LockHolder(socket.gethostname(), os.getpid(), environ.get("SLURM_JOB_ID", ""))
    began = time.monotonic()
    while True:
        # Not "w": that would empty a file whose lock, and name, are another process's.
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKING_UNSUPPORTED:
                warning = message(
                    "distributed.no-locks-here",
                    "kovqa: {folder} is on a file system without locks: make sure that only one run uses it",
                    folder=folder,
                )
                print(warning, file=sys.stderr)
                return stream
            # These two say that somebody holds it; anything else is a fault of the file system.
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            _wait_for_holder(path, holder, began)
            continue
        # Between our open and our lock another process may have removed the file and locked a new one of the
        # same name: a lock on a file that nobody else can open holds nothing. Then: open it again.
        if _is_same_file(stream, path):
            stream.truncate(0)
            stream.write(json.dumps(asdict(holder)))
            stream.flush()
            return stream


def _wait_for_holder(path: Path, own: LockHolder, began: float) -> None:
    """Another process holds the lock: wait a little, take it over, or give up.

    Taking over removes the file: the dead host keeps its lock on the removed one, the next try makes another.
    Only ever from the same SLURM job: that its old processes are gone is what SLURM guarantees.

    Raises:
        SettingsError: waited long enough.
    """
    holder = _read_holder(path)
    waited = time.monotonic() - began
    if holder and own.job and holder.job == own.job and waited > _LOCAL_WAIT_SECONDS:
        path.unlink(missing_ok=True)
        return
    is_local = holder is None or holder.host == own.host
    if waited > (_LOCAL_WAIT_SECONDS if is_local else _REMOTE_WAIT_SECONDS):
        raise _locked_error(path, holder)
    time.sleep(_RETRY_SECONDS)


def _read_holder(path: Path) -> LockHolder | None:
    """Who holds the lock; None where the file was taken at this very moment, and is still empty."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return LockHolder(**{key: values[key] for key in ("host", "pid", "job")})
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _locked_error(path: Path, holder: LockHolder | None) -> SettingsError:
    hint = message(
        "distributed.run-locked.hint",
        "wait for it, or choose another -o; if that host is gone for good, remove {path}",
        path=path,
    )
    if holder is None:
        return SettingsError(
            message("distributed.run-locked", "another run is training in {folder}", folder=path.parent), hint
        )
    problem = message(
        "distributed.run-locked-by",
        "another run is training in {folder} (process {pid} on {host})",
        folder=path.parent,
        pid=holder.pid,
        host=holder.host,
    )
    return SettingsError(problem, hint)


def _is_same_file(stream: IO[str], path: Path) -> bool:
    """Is the locked file the one that the path names?"""
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
