"""The process of one tracker: reads the run's log as it grows, and records it. Started by `guarded_tracker.py`.

A library's threads, signal handlers, hooks, random numbers and output are its own here. Whatever it does, the run
has its log; what could not be recorded yet is tried again, also when the run is resumed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

from kovqa_core.file_lock import NO_LOCKS, lock_file
from kovqa_core.files import read_json
from kovqa_core.process_pool import STOP_SIGNALS
from kovqa_core.tracking.secret_texts import without_secrets
from kovqa_core.tracking.tracked_run import (
    TRACKING_FOLDER,
    LoggedValues,
    Tracker,
    error_text,
    logged_values,
    read_state,
    read_tracked_run,
    shown_samples,
    write_state,
)

Report = Callable[[str, int], None]  # a problem (or ""), the last step that is recorded
_RETRY_SECONDS = 30.0  # after a failure
_MOST_LINES = 100  # of the log, between two looks at what is recorded
_KILLED_SECONDS = 10  # in which what a killed run has logged is still recorded
_END_SECONDS = 60  # whatever waits for this process has ended it before
_LOCKED_SECONDS = 60  # without a moment for Python
_NICENESS = 10  # training goes first


def main(name: str, module: str, folder: Path) -> None:
    """Record a run until it ends."""
    wakeups, signs = _own_pipes()
    _ignore_stop_signals()
    os.nice(_NICENESS)

    def report(problem: str, step: int) -> None:
        line = {"at": time.monotonic(), "problem": without_secrets(problem, os.environ), "step": step}
        # Where nobody reads, or the pipe is full of lines that say the same.
        with contextlib.suppress(OSError):
            os.write(signs, json.dumps(line).encode() + b"\n")

    ends: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=[wakeups, ends], daemon=True).start()
    with _one_at_a_time(folder, name):
        recorder = LogRecorder(name, module, folder, report)
        outcome = ""
        while not outcome:
            outcome = _next_end(ends, recorder.seconds_to_retry())
            recorder.record_new(at_once=bool(outcome))
        recorder.finish(outcome)


def _own_pipes() -> tuple[int, int]:
    """Standard input and output, taken away from the library and its children: it reads nothing, and prints nowhere."""
    wakeups, signs = os.dup(0), os.dup(1)
    os.set_blocking(signs, False)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    return wakeups, signs


def _ignore_stop_signals() -> None:
    """A terminal or a queue signals everybody; the run says when it ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default ends the process, and needs no Python for it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextlib.contextmanager
def _one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Wait for the process of a launch that was killed a moment ago: it still records what that had logged."""
    path, descriptor = folder / TRACKING_FOLDER / f"{name}.lock", None
    deadline = time.monotonic() + _KILLED_SECONDS + 1
    try:
        while (descriptor := lock_file(path)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    yield
    if descriptor is not None:
        os.close(descriptor)


def _listen(wakeups: int, ends: SimpleQueue[str]) -> None:
    """In a thread: hear of new lines of the log ("") and of the run's end, whatever the library is doing.

    The alarm ends this process by itself: where a library holds Python's lock for ever, nobody puts it off.
    """
    outcome = ""
    while not outcome:
        signal.alarm(_LOCKED_SECONDS)
        if select.select([wakeups], [], [], _LOCKED_SECONDS / 3)[0]:
            received = os.read(wakeups, 1 << 16)
            last = received.decode().splitlines()[-1] if received else "end killed"
            outcome = last.removeprefix("end ")
            if outcome:
                signal.alarm(_KILLED_SECONDS if outcome == "killed" else _END_SECONDS)
            ends.put(outcome)


def _next_end(ends: SimpleQueue[str], seconds: float | None) -> str:
    """Wait for a new line of the log; how the run ended, or "" while it goes on."""
    try:
        outcome = ends.get(timeout=seconds)
        while not outcome:
            outcome = ends.get_nowait()
    except Empty:
        return ""
    return outcome


class LogRecorder:
    """Records the lines of a log that a tracker does not have yet.

    Args:
        name, module: of the tracker.
        folder: of the run.
        report: told of the first problem of a kind, and how far the tracker has come.
    """

    def __init__(self, name: str, module: str, folder: Path, report: Report) -> None:
        self._name, self._module, self._report = name, module, report
        self._run, self._state = read_tracked_run(folder), read_state(folder, name)
        self._tracker: Tracker | None = None
        self._offset, self._last_step = 0, max(self._state.sent.values(), default=0)
        self._failed_at: float | None = None
        self._reported: set[str] = set()

    def seconds_to_retry(self) -> float | None:
        """Until what failed is tried again; None: nothing failed."""
        if self._failed_at is None:
            return None
        return max(0.0, self._failed_at + _RETRY_SECONDS - time.monotonic())

    def record_new(self, *, at_once: bool) -> None:
        """Record what was logged since the last time; what fails is kept for the next.

        Args:
            at_once: also where the last failure was only just.
        """
        if not at_once and (self.seconds_to_retry() or 0) > 0:
            return
        with self._problems():
            if self._tracker is None:
                module = importlib.import_module(self._module)
                module.set_variables(self._run)
                # Before its server knows the id: whatever comes between, the next launch has it, too.
                write_state(self._run.folder, self._name, self._state)
                self._tracker = module.open_tracker(self._run, self._state, self._report_once)
                write_state(self._run.folder, self._name, self._state)
                self._report("", self._last_step)
            while self._record_some():
                self._report("", self._last_step)
            self._failed_at = None

    def finish(self, outcome: str) -> None:
        """End the run in the tracker."""
        with self._problems():
            if self._tracker is not None:
                self._tracker.finish(outcome, _summary(self._run.folder) if outcome == "finished" else {})

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # SystemExit too: some libraries ask for an end
            self._failed_at = time.monotonic()
            self._report_once(error_text(error))

    def _report_once(self, problem: str) -> None:
        """Report a problem, and no other of its kind."""
        kind = problem.partition(":")[0]
        if kind not in self._reported:
            self._reported.add(kind)
            self._report(problem, self._last_step)

    def _record_some(self) -> bool:
        """Record the next lines of the log; False: there are none."""
        assert self._tracker is not None
        with self._run.log.open("rb") as stream:
            stream.seek(self._offset)
            lines = [line for line in (stream.readline() for _ in range(_MOST_LINES)) if line.endswith(b"\n")]
        if not lines:
            return False
        rows = [row for row in map(logged_values, lines) if row is not None and self._is_new(row)]
        self._tracker.add_values(rows)
        for row in rows:
            if row.kind == "eval" and (samples := shown_samples(self._run, row.step)):
                self._tracker.add_samples(row.step, samples)
        self._offset += sum(map(len, lines))
        for row in rows:
            self._state.sent[row.kind] = self._last_step = row.step
        write_state(self._run.folder, self._name, self._state)
        return True

    def _is_new(self, row: LoggedValues) -> bool:
        return bool(row.values) and row.step > self._state.sent.get(row.kind, -1)


def _summary(folder: Path) -> dict[str, float]:
    """The numbers of a finished run."""
    path = folder / "result.json"
    result = read_json(path) if path.is_file() else {}
    return {
        key: float(value)
        for key, value in result.items()
        if isinstance(value, int | float) and key != "schema"
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    # Not by Python's own end: a library's thread, or what it left to be done at exit, could wait for ever.
    os._exit(0)
