"""The door through which processes enter: `python worker.py RUN/run.yaml` (or OUTPUT.parts/job.json).

Started by torchrun or srun, by its path, with PYTHONSAFEPATH=1, so that nothing in the user's folder
can take the engine's place. The first process that fails leaves `error.json` for the launcher.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kovqa_core.answer.workers import TableJob
    from kovqa_core.distributed.rank_info import RankInfo
    from kovqa_core.errors import KovqaError
    from kovqa_core.settings.run import Run, WorkerJob

ENGINE_FOLDER = Path(__file__).resolve().parent
# All ask for a checkpoint and an end; torchrun passes on the one it got.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def check_engine_path() -> None:
    """Refuse to run with an engine other than the one this file belongs to."""
    import kovqa_core

    found = Path(kovqa_core.__file__ or "").resolve().parent
    if found != ENGINE_FOLDER:
        sys.exit(
            f"kovqa: the engine in {found} is not the one in {ENGINE_FOLDER}; unset PYTHONPATH and try again"
        )


def main(run_file: Path) -> int:
    """Train the run of a `run.yaml`, or answer a share of a `job.json`; the exit code.

    0 means finished, or stopped with a complete checkpoint; some launchers want another code for that
    (`stop_exit_code`). `error.json` has the reason for whoever started this.
    """
    asked = threading.Event()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup ignores it
            signal.signal(number, lambda *_: asked.set())
    from kovqa_core.errors import KovqaError, Stopped

    folder, rank = run_file.parent, None
    try:
        run, do = _load_job(run_file)
        from kovqa_core.launch.launchers import find_launcher

        launcher = find_launcher(run.profile)
        rank = launcher.rank_from_environment(run.profile, os.environ)
        _redirect_output(folder, rank)
        try:
            do(rank, asked.is_set)
        except Stopped as stopped:
            _write_error(folder, stopped, rank)
            return launcher.stop_exit_code(run.profile, is_main_process=rank.first)
        return 0
    except ImportError as error:
        return _write_error(folder, _import_failure(error), rank)
    except KovqaError as error:
        return _write_error(folder, error, rank)
    except BaseException as error:
        print(traceback.format_exc(), file=sys.stderr)
        if not asked.is_set() and not _is_peer_disconnect(error):
            _write_error(folder, error, rank)
        return 1


def _load_job(file: Path) -> tuple[WorkerJob, Callable[[RankInfo, Callable[[], bool]], None]]:
    """What is to be done, and what does it."""
    from kovqa_core.answer.partial_file import JOB_FILE
    from kovqa_core.settings.run import read_run

    if file.name == JOB_FILE:
        from kovqa_core.answer.workers import read_table_job

        job = read_table_job(file)
        return job, partial(_run_answer_job, job)
    run = read_run(file)
    return run, partial(_run_train_job, run)


def _run_answer_job(job: TableJob, rank: RankInfo, stop: Callable[[], bool]) -> None:
    """Answer this process's share of a table."""
    from kovqa_core.answer.local import answer_rank_rows
    from kovqa_core.distributed import process_group, run_lock

    held = run_lock.acquire_run_lock(job.folder, os.environ) if rank.first else None
    answer_rank_rows(job, rank, process_group.local_device(rank, job.profile.device), stop)
    del held


def _run_train_job(run: Run, rank: RankInfo, stop: Callable[[], bool]) -> None:
    """Join the others, train, and leave together; a finished run is left as it is."""
    from kovqa_core.distributed import process_group, run_lock, watchdog
    from kovqa_core.errors import Stopped
    from kovqa_core.launch.world_size import require_world_size
    from kovqa_core.runs.folder import ERROR_FILE, read_result
    from kovqa_core.runs.manifest import record_launch

    if read_result(run.folder) is not None:
        return  # a queue, or torchrun after a kill, began again what was done
    require_world_size(rank, run.profile)
    held = run_lock.acquire_run_lock(run.folder, os.environ) if rank.first else None
    if rank.first:
        (run.folder / ERROR_FILE).unlink(missing_ok=True)  # of an earlier attempt
    hint = (
        f"each rank's stack is in {run.folder / 'logs'}; they met at {rank.meeting}; "
        f"go on from the last checkpoint: kovqa train --resume -o {shlex.quote(str(run.folder))}"
    )
    watch = watchdog.WatchdogConfig(
        rank.rank,
        run.profile.watchdog_minutes,
        alarm=lambda wrong: _write_error(run.folder, type(wrong)(wrong.message, hint), rank),
        warn=_print_warning,
    )
    try:
        with record_launch(run) if rank.first else contextlib.nullcontext():
            from kovqa_core.train.loop import run_training

            device = process_group.init_process_group(rank, run.profile.device, watch)
            try:
                run_training(run, rank, device, stop)
            except Stopped:
                process_group.destroy_process_group()
                raise
            process_group.destroy_process_group()
    finally:
        watchdog.stop_watchdog()
        del held


def _import_failure(error: ImportError) -> KovqaError:
    from kovqa_core.errors import WorkerError

    return WorkerError(
        f"a worker could not start: {error} (on {socket.gethostname()}, {sys.executable})",
        "its python needs kovqa and all it imports: see `python`, `prologue` and `wrap` of the profile",
    )


def _is_peer_disconnect(error: BaseException) -> bool:
    """Is this only another process's end, noticed here?"""
    text = str(error)
    return any(mark in text for mark in ("Connection closed by peer", "Connection reset by peer", "gloo"))


def _redirect_output(folder: Path, rank: RankInfo) -> None:
    """Send this process's output to its own log; the first one's events go to who listens."""
    from kovqa_core.runs.events import EVENTS_VARIABLE

    path = folder / "logs" / f"rank-{rank.rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 2)
    if not (rank.first and os.environ.get(EVENTS_VARIABLE)):
        os.dup2(handle, 1)


def _print_warning(message: str) -> None:
    from kovqa_core.runs.events import EVENTS_VARIABLE

    print(f"kovqa: {message}", file=sys.stderr, flush=True)
    if os.environ.get(EVENTS_VARIABLE):
        print(json.dumps({"kind": "warning", "note": message}, ensure_ascii=False), flush=True)


def _write_error(folder: Path, error: BaseException, rank: RankInfo | None) -> int:
    """Leave an error for the launcher; only the first one stays. Its exit code."""
    from kovqa_core.errors import ERROR_CLASSES, KovqaError
    from kovqa_core.runs.folder import ERROR_FILE

    told = {"kind": "", "message": f"{type(error).__name__}: {error}", "detail": traceback.format_exc()}
    if isinstance(error, KovqaError) and type(error).__name__ in ERROR_CLASSES:
        told = {"kind": type(error).__name__, "message": error.message, "detail": error.hint}
    part = folder / f".{ERROR_FILE}.{socket.gethostname()}.{os.getpid()}.part"
    text = json.dumps({**told, "rank": rank.rank if rank else -1}, ensure_ascii=False)
    try:
        part.write_text(text, encoding="utf-8")
        os.link(part, folder / ERROR_FILE)
    except OSError:
        pass  # somebody was first, or the disk takes nothing: the line below is what remains
    part.unlink(missing_ok=True)
    print(f"kovqa: {told['message']}", file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, KovqaError) else 1


def _exit_now(code: int) -> None:
    """End at once: threads of torch's collectives that let go of something while Python is taken down abort."""
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    check_engine_path()
    from kovqa_core.process_pool import die_with_parent

    die_with_parent()
    exit_status = main(Path(sys.argv[1]))
    for (
        number
    ) in STOP_SIGNALS:  # a late one would kill what has ended well: Python takes its handlers away first
        signal.signal(number, signal.SIG_IGN)
    _exit_now(exit_status)
