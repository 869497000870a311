"""One run at a time in a run folder, also where several hosts share it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import SettingsError
from kovqa_core.file_lock import NO_LOCKS, try_lock
from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import show_text

LOCK_FILE = ".lock"  # held by the first process of a run
CLAIM_FILE = ".claim"  # held by the command that started it
_LOCAL_WAIT_SECONDS = 20.0  # an earlier run's processes have so long to end
_CLAIM_WAIT_SECONDS = 60.0  # a command that was stopped has so long to write its checkpoint
_REMOTE_WAIT_SECONDS = (
    120.0  # ... on another host: an NFS server frees a dead client's locks after 90 seconds
)
_RETRY_SECONDS = 0.5


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

    Not `file_lock`: `runs.folder.is_run_active` looks with a shared lock, because looking with an exclusive one could
    refuse a run that starts at that moment.

    Args:
        folder: of the run.
        environ: for the number of the SLURM job.

    Returns:
        The locked file; closing it gives the lock up.

    Raises:
        SettingsError: another run is training in this folder.
    """
    job = environ.get("SLURM_JOB_ID", "")
    return _acquire(folder / LOCK_FILE, job, _LOCAL_WAIT_SECONDS, shared=False)


def claim_run_folder(folder: Path, *, joint: bool, wait: bool) -> IO[str]:
    """Hold a run folder as the command that writes its `run.yaml`, starts its processes and waits for them.

    Another lock than that of `acquire_run_lock`, which the first of those processes takes.

    Args:
        folder: of the run; it exists.
        joint: the same command is typed on several hosts: they share the claim with each other.
        wait: for a command that is about to end, like `acquire_run_lock`; else it is named at once.

    Returns:
        The locked file; closing it gives the claim up.

    Raises:
        SettingsError: another command holds the folder.
    """
    # Without a job: two commands of one allocation are both alive, and none takes over from the other.
    return _acquire(folder / CLAIM_FILE, "", _CLAIM_WAIT_SECONDS if wait else None, shared=joint)


def _acquire(path: Path, job: str, local_wait: float | None, *, shared: bool) -> IO[str]:
    """A file, locked; see `acquire_run_lock`.

    Args:
        path: the file.
        job: this process's SLURM job, "" for none: that one may take over from itself.
        local_wait: seconds that a process of this host may still hold it; None: nobody is waited for.
        shared: beside others who share it.
    """
    holder = LockHolder(socket.gethostname(), os.getpid(), job)
    began = time.monotonic()
    while True:
        # Not "w": that would empty a file whose lock, and name, are another process's.
        stream = path.open("a+", encoding="utf-8")
        try:
            is_ours = try_lock(stream.fileno(), shared=shared)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warning = message(
                "distributed.no-locks-here",
                "kovqa: {folder} is on a file system without locks: make sure that only one run uses it",
                folder=path.parent,
            )
            print(show_text(warning), file=sys.stderr)
            return stream
        if not is_ours:
            if local_wait is None:
                raise _locked_error(path, _read_holder(path))
            _wait_for_holder(path, holder, began, local_wait)
            continue
        # Between our open and our lock another process may have removed the file and locked a new one of the
        # same name: a lock on a file that nobody else can open holds nothing. Then: open it again.
        if _is_same_file(stream, path):
            stream.truncate(0)
            stream.write(json.dumps(asdict(holder)))
            stream.flush()
            return stream


def _wait_for_holder(path: Path, own: LockHolder, began: float, local_wait: float) -> None:
    """Another process holds the lock: wait a little, take it over, or give up.

    Taking over removes the file: the dead host keeps its lock on the removed one, the next try makes another.
    Only ever from the same SLURM job: that its old processes are gone is what SLURM guarantees.

    Raises:
        SettingsError: waited long enough.
    """
    holder = _read_holder(path)
    waited = time.monotonic() - began
    if waited < _RETRY_SECONDS:
        text = message(
            "distributed.waiting-for-run", "kovqa: waiting: {problem}", problem=_held_message(path, holder)
        )
        print(show_text(text), file=sys.stderr)
    if holder and own.job and holder.job == own.job and waited > _LOCAL_WAIT_SECONDS:
        path.unlink(missing_ok=True)
        return
    is_local = holder is None or holder.host == own.host
    if waited > (local_wait if is_local else max(local_wait, _REMOTE_WAIT_SECONDS)):
        raise _locked_error(path, holder)
    time.sleep(_RETRY_SECONDS)


def _read_holder(path: Path) -> LockHolder | None:
    """Who holds the lock; None where the file was taken at this very moment, and is still empty."""
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        return LockHolder(**{key: values[key] for key in ("host", "pid", "job")})
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _locked_error(path: Path, holder: LockHolder | None) -> SettingsError:
    hint = message(
        "distributed.run-locked.hint",
        "wait for it, or choose another -o; if that host is gone for good, remove {path}",
        path=path,
    )
    return SettingsError(_held_message(path, holder), hint)


def _held_message(path: Path, holder: LockHolder | None) -> Message:
    if holder is None:
        return message("distributed.run-locked", "another run is training in {folder}", folder=path.parent)
    return message(
        "distributed.run-locked-by",
        "another run is training in {folder} (process {pid} on {host})",
        folder=path.parent,
        pid=holder.pid,
        host=holder.host,
    )


def _is_same_file(stream: IO[str], path: Path) -> bool:
    """Is the locked file the one that the path names?"""
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
