"""Processes side by side on one machine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from kovqa_core.errors import MachineError

if TYPE_CHECKING:
    from concurrent.futures import Future

TaskResult = TypeVar("TaskResult")
_shared_counter: Any = None  # in a process of the pool: the counter it shares with its parent


def usable_cpu_count() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def die_with_parent() -> None:
    """End when the parent is gone: what a killed process started must not go on on its own."""
    import multiprocessing

    spawned_by = multiprocessing.parent_process()  # known even where it is gone already
    parent = (spawned_by.pid if spawned_by else None) or os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)  # all ask to save, and to end


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes started meanwhile begin with `STOP_SIGNALS` blocked: none reaches them too early."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals() -> None:
    """In a process of `multiprocessing`: end with the parent, or when the parent says so, and not before.

    A launcher or a terminal signals the whole group. The parent then has something to finish, and needs
    this process for it.
    """
    import multiprocessing

    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    parent, above = multiprocessing.parent_process(), os.getppid()
    if not hasattr(signal, "sigtimedwait"):  # macOS: SIGTERM ends it, whoever sent it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        die_with_parent()
        return
    # SIGTERM stays blocked in every thread, and one waits for it, because only so the sender is known.
    # It must not be ignored: by SIGTERM the parent ends what does not end by itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def watch() -> None:
        while os.getppid() == above and (parent is None or parent.is_alive()):
            told = signal.sigtimedwait({signal.SIGTERM}, 0.5)
            if told and parent and told.si_pid == parent.pid:
                os._exit(0)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


def add_to_count(n: int) -> None:
    """In a task of `side_by_side`: add to the count that its caller is told."""
    with _shared_counter.get_lock():
        _shared_counter.value += n


def parallel_map(
    task: Callable[..., TaskResult],
    arguments: Iterable[tuple[Any, ...]],
    told: Callable[[int, float], None] | None = None,
) -> list[TaskResult]:
    """Call a module's function with each tuple of arguments, on all cores; results in that order.

    Args:
        task: may call `count`.
        arguments: one tuple a call.
        told: called now and then with what the tasks have counted and the share of calls done.

    Raises:
        MachineError: a process was killed, most often for want of memory.
        Exception: the first that a task raised; the others are stopped.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    spawn = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of a progress bar
    counter = spawn.Value("q", 0)
    pool = ProcessPoolExecutor(usable_cpu_count(), spawn, _init_pool_process, (counter,))
    try:
        futures = [pool.submit(task, *each) for each in arguments]
        for done in _iter_completed(futures):
            for future in done:
                future.result()  # the first failure ends it all
            if told:
                told(counter.value, sum(future.done() for future in futures) / len(futures))
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise MachineError("a process was killed from outside", "is there enough memory?") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _init_pool_process(counter: Any) -> None:
    global _shared_counter
    _shared_counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    die_with_parent()


def _iter_completed(futures: list[Future[TaskResult]]) -> Iterator[set[Future[TaskResult]]]:
    from concurrent.futures import FIRST_EXCEPTION, wait

    left = set(futures)
    while left:
        done, left = wait(left, timeout=0.2, return_when=FIRST_EXCEPTION)
        yield done
