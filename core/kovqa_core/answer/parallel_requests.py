"""Several requests to a server under way at once: threads send and wait, and the thread that iterates does all else."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kovqa_core.progress import OnProgress, Progress

_NOTICE_SECONDS = 5.0  # between two notices of a server that is busy: many requests wait for the same one
Item = TypeVar("Item")
Reply = TypeVar("Reply")


def send_in_parallel(
    items: Sequence[Item],
    send: Callable[[Item, OnProgress], Reply],
    concurrency: int,
    on_progress: OnProgress,
) -> Iterator[tuple[Item, Reply]]:
    """Items and their replies as they come. The first failure ends it without waiting for the others.

    Args:
        items: what is asked about.
        send: one request; called in threads, with what it may tell of a server that is out of reach.
        concurrency: requests under way at once.
        on_progress: told of such notices, in the thread that iterates.

    Raises:
        BaseException: whatever `send` raises. After Ctrl-C the replies that came meanwhile are yielded first.
    """
    pending = queue.SimpleQueue[Item]()
    # What threads hand over: an item and its reply, a notice, or what failed.
    results = queue.SimpleQueue[tuple[Item, Reply] | Progress | BaseException]()
    ended = threading.Event()
    for item in items:
        pending.put(item)

    def send_requests() -> None:
        with contextlib.suppress(queue.Empty):
            while not ended.is_set():
                item = pending.get_nowait()
                try:
                    results.put((item, send(item, results.put)))
                except BaseException as error:
                    results.put(error)

    on_notice = _throttled(on_progress)
    remaining = len(items)
    try:
        for _ in range(min(concurrency, len(items))):
            # Daemons: Ctrl-C, or a failure, does not wait for replies under way, which may take minutes.
            threading.Thread(target=send_requests, daemon=True).start()
        while remaining:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Progress):
                on_notice(result)
                continue
            remaining -= 1
            yield result
    except KeyboardInterrupt:
        ended.set()  # first: a thread that begins another request now would ask for nothing
        while not results.empty():  # replies that came meanwhile are kept, not asked for again
            result = results.get_nowait()
            if isinstance(result, tuple):
                yield result
        raise
    finally:
        ended.set()


def _throttled(on_progress: OnProgress) -> OnProgress:
    """Passes one call on in so many seconds."""
    next_time = 0.0

    def on_notice(progress: Progress) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + _NOTICE_SECONDS
            on_progress(progress)

    return on_notice
