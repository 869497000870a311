"""Entry point of worker processes: `python worker.py RUN/run.yaml` (or OUTPUT.parts/job.json).

Started by torchrun or srun, by its path, with PYTHONSAFEPATH=1, so that nothing in the user's folder
can take the engine's place. The first process that fails leaves `error.json` for the launcher.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported inside functions: a missing library must end in error.json, not before it
    from kovqa_core.answer.workers import WorkerAnswerJob
    from kovqa_core.distributed.rank_info import RankInfo
    from kovqa_core.errors import KovqaError
    from kovqa_core.messages import Message
    from kovqa_core.settings.profile import Profile
    from kovqa_core.settings.run import Run, WorkerJob

ENGINE_FOLDER = Path(__file__).resolve().parent
# All ask for a checkpoint and an end; torchrun passes on the one it got.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_OWN_STOP_SECONDS = 5.0  # between the first process that is asked to stop and the last


def check_engine_path() -> None:
    """Refuse to run with an engine other than the one this file belongs to."""
    import kovqa_core
    from kovqa_core.messages import message

    imported = Path(kovqa_core.__file__ or "").resolve().parent
    if imported != ENGINE_FOLDER:
        sys.exit(
            message(
                "worker.other-engine",
                "kovqa: the engine in {imported} is not the one in {expected}; unset PYTHONPATH and try again",
                imported=imported,
                expected=ENGINE_FOLDER,
            )
        )


def main(job_file: Path) -> int:
    """Train the run of a `run.yaml`, or answer the rows of one rank of a `job.json`.

    Returns:
        The exit code. 0 means finished, or stopped with a complete checkpoint: `error.json` tells them
        apart. Some launchers want another code for a stop (`stop_exit_code`).
    """
    stop_event = threading.Event()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup ignores it
            signal.signal(number, lambda *_: stop_event.set())
    from kovqa_core.errors import KovqaError, Stopped

    folder, rank = job_file.parent, None
    try:
        job, do_job = _load_job(job_file)
        from kovqa_core.launch.launchers import find_launcher

        launcher = find_launcher(job.profile)
        rank = launcher.rank_from_environment(job.profile, os.environ)
        _redirect_output(folder, rank)
        try:
            do_job(rank, stop_event.is_set)
        except Stopped as stopped:
            if _others_go_on(job.profile, stop_event):
                return Stopped.exit_code  # a failure to torchrun: it starts again with the nodes that stay
            _write_error(folder, stopped, rank)
            return launcher.stop_exit_code(job.profile, is_main_process=rank.is_main_process)
        return 0
    except ImportError as error:
        return _write_error(folder, _import_failure(error), rank)
    except KovqaError as error:
        return _write_error(folder, error, rank)
    except BaseException as error:
        _print_traceback()
        # Where others were stopped or failed, this process fails, too, in a collective: that is their
        # story's end, and must not stand in error.json as its beginning.
        if not stop_event.is_set() and not _is_peer_disconnect(error):
            from kovqa_core.models.compile_errors import find_compile_error
            from kovqa_core.process_limits import find_limit

            return _write_error(folder, find_limit(error) or find_compile_error(error, folder) or error, rank)
        return 1


def _print_traceback() -> None:
    """Into this process's log, which people look at on a terminal: without control characters of a message."""
    from kovqa_core.messages.one_line import escape_one_line

    print("\n".join(map(escape_one_line, traceback.format_exc().splitlines())), file=sys.stderr)


def _others_go_on(profile: Profile, stop_event: threading.Event) -> bool:
    """Stopped with a node that leaves a range of nodes: was this process not asked itself?

    Where a node comes, torchrun asks all of them, but not at the same moment.
    """
    return len(profile.node_range) > 1 and not stop_event.wait(_OWN_STOP_SECONDS)


def _load_job(file: Path) -> tuple[WorkerJob, Callable[[RankInfo, Callable[[], bool]], None]]:
    """What is to be done, and the function that does it."""
    from kovqa_core.answer.partial_file import JOB_FILE
    from kovqa_core.settings.run import read_run

    if file.name == JOB_FILE:
        from kovqa_core.answer.workers import read_worker_job

        job = read_worker_job(file)
        return job, partial(_run_answer_job, job)
    run = read_run(file)
    return run, partial(_run_train_job, run)


def _run_answer_job(job: WorkerAnswerJob, rank: RankInfo, stop_requested: Callable[[], bool]) -> None:
    """Answer this process's rows of a table."""
    from kovqa_core.answer.local import answer_rank_rows
    from kovqa_core.distributed import process_group, run_lock

    lock = run_lock.acquire_run_lock(job.folder, os.environ) if rank.is_main_process else None
    answer_rank_rows(job, rank, process_group.local_device(rank, job.profile.device), stop_requested)
    del lock  # held until here: closing the file gives it up


def _run_train_job(run: Run, rank: RankInfo, stop_requested: Callable[[], bool]) -> None:
    """Join the others, train, and leave together; a finished run is left as it is."""
    from kovqa_core.distributed import process_group, run_lock, watchdog
    from kovqa_core.errors import Stopped
    from kovqa_core.launch.world_size import require_world_size
    from kovqa_core.runs.events import report_warning
    from kovqa_core.runs.folder import ERROR_FILE, read_result
    from kovqa_core.runs.manifest import record_launch, require_same_data
    from kovqa_core.settings.run import split_for_processes

    if read_result(run.folder) is not None:
        return  # a queue, or torchrun after a kill, began again what was done
    require_world_size(rank, run.profile)
    run = split_for_processes(run, rank.world_size)
    profile = run.profile
    lock = run_lock.acquire_run_lock(run.folder, os.environ) if rank.is_main_process else None
    if rank.is_main_process:
        (run.folder / ERROR_FILE).unlink(missing_ok=True)  # of an earlier attempt
        require_same_data(run)  # a job that comes back from a queue was not planned anew
    hint = _hung_run_hint(run, rank)
    watch = watchdog.WatchdogConfig(
        rank.rank,
        profile.watchdog_minutes,
        alarm=lambda error: _write_error(run.folder, type(error)(error.message, hint), rank),
        warn=report_warning,
    )
    try:
        with record_launch(run) if rank.is_main_process else contextlib.nullcontext():
            from kovqa_core.train.loop import run_training

            device = process_group.init_process_group(rank, profile.device, watch)
            try:
                run_training(run, rank, device, stop_requested)
            except Stopped:  # raised on all processes at the same step: they leave together
                process_group.destroy_process_group()
                raise
            process_group.destroy_process_group()
    finally:
        watchdog.stop_watchdog()
        del lock


def _hung_run_hint(run: Run, rank: RankInfo) -> Message:
    from kovqa_core.messages import message, shell_quote

    return message(
        "worker.hung-run.hint",
        "each rank's stack is in {logs}; they met at {rendezvous}; "
        "go on from the last checkpoint (without one the run begins anew): kovqa train --resume -o {folder}",
        logs=run.folder / "logs",
        rendezvous=rank.rendezvous_text,
        folder=shell_quote(run.folder),
    )


def _import_failure(error: ImportError) -> KovqaError:
    from kovqa_core.errors import WorkerError
    from kovqa_core.messages import message

    return WorkerError(
        message(
            "worker.import-failed",
            "a worker could not start: {error} (on {host}, {python})",
            error=error,
            host=socket.gethostname(),
            python=sys.executable,
        ),
        message(
            "worker.import-failed.hint",
            "its Python needs kovqa and all it imports: see `python`, `setup` and `command_prefix` of the profile",
        ),
    )


def _is_peer_disconnect(error: BaseException) -> bool:
    """Is this only the end of another process, noticed here?"""
    text = str(error)
    return any(mark in text for mark in ("Connection closed by peer", "Connection reset by peer", "gloo"))


def _redirect_output(folder: Path, rank: RankInfo) -> None:
    """Send this process's output to its own log; the first one's events go to its launcher.

    The file descriptors, not sys.stderr: what C++ libraries print belongs there, too.
    """
    from kovqa_core.runs.events import EVENTS_VARIABLE

    path = folder / "logs" / f"rank-{rank.rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 2)
    if not (rank.is_main_process and os.environ.get(EVENTS_VARIABLE)):
        os.dup2(handle, 1)


def _write_error(folder: Path, error: BaseException, rank: RankInfo | None) -> int:
    """Leave an error for the launcher; only the first one stays. Returns the exit code.

    A hard link is made only where none exists, on NFS too: it takes the file to its name whole, and of
    several processes that fail at once the first one wins.
    """
    from kovqa_core.errors import ERROR_CLASSES, KovqaError
    from kovqa_core.messages.one_line import cut_value, escape_one_line
    from kovqa_core.runs.folder import ERROR_FILE, error_values

    text = cut_value(f"{type(error).__name__}: {error}")  # a compiler's is 100,000 characters
    values: dict[str, object] = {"kind": "", "message": text, "detail": traceback.format_exc()}
    if isinstance(error, KovqaError) and type(error).__name__ in ERROR_CLASSES:
        text = error.message
        values = error_values(error)
    partial_file = folder / f".{ERROR_FILE}.{socket.gethostname()}.{os.getpid()}.part"
    document = json.dumps({**values, "rank": rank.rank if rank else -1}, ensure_ascii=False)
    try:
        partial_file.write_text(document, encoding="utf-8")
        os.link(partial_file, folder / ERROR_FILE)
    except OSError:
        pass  # another process was first, or the disk is full: the line below is what remains
    partial_file.unlink(missing_ok=True)
    print(f"kovqa: {escape_one_line(text)}", file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, KovqaError) else 1


def _exit_now(code: int) -> None:
    """End without taking Python down.

    Threads of torch's collectives still run, and abort the process (SIGABRT) when the objects they use are
    destroyed under them: a run that ended well would end with 134. Loader processes end first, by hand.
    """
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    check_engine_path()
    from kovqa_core.process_pool import die_with_parent

    die_with_parent()
    os.environ["KOVQA_LANG"] = "en"  # for logs; the launcher translates what it is told
    exit_status = main(Path(sys.argv[1]))
    # A late signal would kill what has ended well: Python takes its handlers away first.
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)
    _exit_now(exit_status)
