"""Processes side by side on one machine: how they start, what ends them, and a map over all cores."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from kovqa_core import cgroup
from kovqa_core.errors import MachineError
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.soft_limit import soft_limit
from kovqa_core.system_support import existing_signals

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing.sharedctypes import Synchronized

TaskResult = TypeVar("TaskResult")
TaskArguments = TypeVarTuple("TaskArguments")

_PARENT_POLL_SECONDS = 0.5
_PROGRESS_SECONDS = 0.2

# In a process of the pool: the counter it shares with its parent. A global, because a task is pickled by
# name and shared memory can only be inherited, so the counter reaches the process when it starts.
_shared_counter: Synchronized[int] | None = None


def usable_cpu_count() -> int:
    """How many cores this process may use: those that SLURM, taskset or a container leave to it."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    # Rounded down: a thread more than the quota holds makes all of them wait for the next period.
    return cores if quota is None else max(1, min(cores, int(quota)))


def die_with_parent() -> None:
    """End when the parent is gone: what a killed process started must not go on by itself.

    A thread looks at the parent's id, twice a second. Linux's PR_SET_PDEATHSIG would act at once, but it
    fires when the thread that started us ends (prctl(2)), and macOS has none.
    """
    import multiprocessing

    # Between the start and this line the parent can already have died, and getppid() then names whoever
    # adopted us. multiprocessing has its id from the parent itself.
    spawned_by = multiprocessing.parent_process()
    parent = (spawned_by.pid if spawned_by else None) or os.getppid()

    def watch() -> None:
        # By its handle, too: Windows keeps naming a parent that is gone.
        while os.getppid() == parent and (spawned_by is None or spawned_by.is_alive()):
            time.sleep(_PARENT_POLL_SECONDS)
        os._exit(143)  # not sys.exit: that would only end this thread

    threading.Thread(target=watch, daemon=True).start()


STOP_SIGNALS = existing_signals(("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"))  # all ask to save, and to end


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes started meanwhile begin with `STOP_SIGNALS` blocked: none reaches them too early.

    A signal mask is inherited across fork and exec, a Python handler is not: a child that is signalled
    before it has run `outlive_signals` would die of the default action.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows: Ctrl-C alone comes from outside
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals() -> None:
    """In a process of `multiprocessing`: end with the parent, or when the parent says so, and not before.

    A launcher or a terminal signals the whole process group. The parent then has a checkpoint to
    finish, and needs this process for it.
    """
    import multiprocessing

    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    parent, parent_id = multiprocessing.parent_process(), os.getppid()
    if not hasattr(signal, "sigtimedwait"):  # macOS and Windows: SIGTERM ends it, whoever sent it
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        die_with_parent()
        return
    # SIGTERM stays blocked in every thread, and one waits for it, because only so the sender is known.
    # It must not be ignored: by SIGTERM the parent ends what does not end by itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def watch() -> None:
        # Two looks at the parent: getppid() notices that it died, is_alive() also where a fork server
        # stands between the two, and is the parent that getppid() names.
        while os.getppid() == parent_id and (parent is None or parent.is_alive()):
            received = signal.sigtimedwait({signal.SIGTERM}, _PARENT_POLL_SECONDS)
            if received and parent and received.si_pid == parent.pid:
                os._exit(0)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it; a container has a small one of its own


@contextlib.contextmanager
def shared_memory_errors(way_out: str = "") -> Iterator[None]:
    """Where processes begin to share memory, or put something into it: name what is full.

    The system's word is ENOSPC, "no space left on device", which reads as a full disk.

    Args:
        way_out: how to do without other processes, for the hint.

    Raises:
        MachineError: /dev/shm is full, or more files are open than this process may have.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch turns the system's error into a RuntimeError
        if "Too many open files" in str(error):
            raise MachineError(
                message(
                    "process_pool.open-files",
                    "more files are open than a process may have here ({limit}): each batch that is ready takes some",
                    limit=soft_limit("RLIMIT_NOFILE") or 0,
                ),
                message(
                    "process_pool.open-files.hint",
                    "raise the limit: ulimit -n 65536{way_out}",
                    way_out=way_out,
                ),
            ) from None
        if re.search(r"No space left|Bus error", str(error)):
            raise _shared_memory_full(way_out) from None
        raise


def _shared_memory_full(way_out: str) -> MachineError:
    usage = shutil.disk_usage(SHARED_MEMORY if SHARED_MEMORY.is_dir() else tempfile.gettempdir())
    size, free = (f"{amount / 2**20:.3g}" for amount in (usage.total, usage.free))
    return MachineError(
        message(
            "process_pool.shared-memory-full",
            "{folder} is full: {free} MB of {size} MB are free, and processes share what they prepare there",
            folder=SHARED_MEMORY,
            size=size,
            free=free,
        ),
        message(
            "process_pool.shared-memory-full.hint",
            "give the container more: docker run --shm-size=8g{way_out}",
            way_out=way_out,
        ),
    )


def add_to_count(n: int) -> None:
    """In a task of `parallel_map`: add to the count that its caller reports."""
    assert _shared_counter is not None, "not in a process of parallel_map"
    with _shared_counter.get_lock():
        _shared_counter.value += n


def parallel_map(
    task: Callable[[*TaskArguments], TaskResult],
    arguments: Iterable[tuple[*TaskArguments]],
    *,
    stage: str = "",
    unit: str = "rows",
    on_progress: OnProgress = ignore_progress,
) -> list[TaskResult]:
    """Call a module's function with each tuple of arguments, on all cores; results in that order.

    Args:
        task: a function at the top of a module (it is pickled by name); may call `add_to_count`.
        arguments: one tuple a call.
        stage: what is being done, for `on_progress`.
        unit: what the tasks count.
        on_progress: called five times a second with what the tasks have counted; the fraction is that
            of calls done.

    Raises:
        MachineError: a process was killed, most often for want of memory; or there is no shared memory.
        Exception: the first that a task raised; the others are stopped.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # A fork would copy locks that other threads (a progress bar, a tensor library) hold at that moment,
    # and nobody would ever release them in the child. Spawned processes start clean.
    spawn = multiprocessing.get_context("spawn")
    with shared_memory_errors():  # both have semaphores
        counter: Synchronized[int] = spawn.Value("q", 0)
        pool = ProcessPoolExecutor(usable_cpu_count(), spawn, _init_pool_process, (counter,))
    try:
        with signals_blocked():  # a call starts a process where there are fewer than calls
            futures = [pool.submit(task, *each) for each in arguments]
        for done in _iter_completed(futures):
            for future in done:
                future.result()  # the first failure ends it all
            fraction = sum(future.done() for future in futures) / len(futures)
            on_progress(Progress(stage, counter.value, unit=unit, fraction=fraction))
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise MachineError(
            message("process_pool.killed", "a process was killed from outside"),
            message("process_pool.killed.hint", "is there enough memory?"),
        ) from None
    finally:
        end_pool(pool)


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes, whatever they do: after Ctrl-C or an error nobody waits for them.

    After a good end they are idle, and it does no harm. SIGKILL, because a process that has just been started
    still has SIGTERM blocked, and would print a traceback for what its parent takes away meanwhile.
    """
    import multiprocessing

    pool.shutdown(wait=False, cancel_futures=True)  # keeps calls from starting
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def _init_pool_process(counter: Synchronized[int]) -> None:
    global _shared_counter
    _shared_counter = counter
    # A terminal or queue signals every process of the group; ours would print a traceback each, or end under
    # their parent's hands. The parent alone answers, and ends them.
    outlive_signals()


def _iter_completed(futures: list[Future[TaskResult]]) -> Iterator[set[Future[TaskResult]]]:
    """Yields the futures completed since the last time, at least every `_PROGRESS_SECONDS`, until all are."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_PROGRESS_SECONDS, return_when=FIRST_EXCEPTION)
        yield done
