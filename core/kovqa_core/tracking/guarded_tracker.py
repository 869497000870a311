"""Trackers beside a run: none of them can stop it, slow it down, or touch its random numbers.

Each library runs in a process of its own (`tracker_process.py`), which reads the run's log. The run only wakes it: one
byte into a pipe, never waited for. So the queue is the log itself, and nothing is dropped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.messages import Message, message
from kovqa_core.messages.one_line import cut_value
from kovqa_core.process_pool import signals_blocked
from kovqa_core.tracking.tensorboard_tracker import TensorBoardFiles
from kovqa_core.tracking.tracked_run import TrackedRun, error_text, write_tracked_run
from kovqa_core.tracking.trackers import TRACKERS

Warn = Callable[[Message], None]
# At a run's end a tracker has so long after its last sign of life, and at least `_LEAST_SECONDS`: no more if that sign
# was of a problem. Where the run was stopped or failed, others wait for it to be over.
_SIGN_SECONDS, _LEAST_SECONDS, _STOPPED_SECONDS = 15.0, 1.0, 5.0


class RunTrackers:
    """All trackers of a run, on its first process.

    Args:
        names: as in `train.track`.
        run: what they are told.
        step: the step training goes on from.
        warn: told once of each tracker's first problem; the run goes on.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, step: int, warn: Warn) -> None:
        self._warn = warn
        self._files: TensorBoardFiles | None = None
        self._processes: list[TrackerProcess] = []
        names = list(dict.fromkeys(names))
        if "tensorboard" in names:
            with self._guarded("tensorboard"):
                self._files = TensorBoardFiles(run.folder, step)
        others = [name for name in names if name != "tensorboard"]
        if others:
            with self._guarded(", ".join(others)):
                write_tracked_run(run)
                for name in others:
                    self._processes.append(TrackerProcess(name, run.folder, self._warn_of))

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """A line was logged.

        Args:
            step: optimizer steps done.
            values: its numbers, by the names of their curves.
        """
        if self._files is not None:
            with self._guarded("tensorboard"):
                self._files.add_values(step, values)
        self._each_process(lambda process: process.wake(step))

    def close(self, outcome: str) -> None:
        """End the run in all of them: `outcome` is finished, stopped or failed. Waits for some seconds at most."""
        if self._files is not None:
            with self._guarded("tensorboard"):
                self._files.close()
        self._files = None
        self._each_process(lambda process: process.end(outcome))
        self._each_process(lambda process: process.wait(outcome))
        self._processes = []

    def _each_process(self, call: Callable[[TrackerProcess], None]) -> None:
        for process in list(self._processes):
            try:
                call(process)
            except Exception as error:
                self._processes.remove(process)
                self._warn_of(process.name, error_text(error))

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._files = None if name == "tensorboard" else self._files
            self._warn_of(name, error_text(error))

    def _warn_of(self, name: str, problem: str) -> None:
        self._warn(
            message(
                "tracking.problem", "warning: {name}: {problem}; the run goes on, and its log has all",
                name=name, problem=cut_value(problem),
            )
        )  # fmt: skip


class TrackerProcess:
    """The process of one tracker, seen from the run.

    Args:
        name: of the tracker.
        folder: of the run.
        warn_of: told of the tracker's name and problem.
    """

    def __init__(self, name: str, folder: Path, warn_of: Callable[[str, str], None]) -> None:
        self.name, self._warn_of = name, warn_of
        self._logged_step = self._recorded_step = 0
        self._sign_at, self._unread = time.monotonic(), b""
        self._is_gone = self._has_problem = False
        command = [sys.executable, "-P", "-m", "kovqa_core.tracking.tracker_process", name]
        with signals_blocked():  # until it ignores them
            self._process = subprocess.Popen(
                [*command, TRACKERS[name].module, str(folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._wakeups, self._signs = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._wakeups, self._signs):
            os.set_blocking(descriptor, False)

    def wake(self, step: int) -> None:
        """The log has a new line, of this step."""
        self._logged_step = step
        self._write(b"\n")
        self._read_signs()

    def end(self, outcome: str) -> None:
        """Let it record the rest of the log, and end."""
        self._write(f"end {outcome}\n".encode())
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self, outcome: str) -> None:
        """Until it has ended, or its time is over."""
        began = time.monotonic()
        while self._process.poll() is None:
            self._read_signs()
            now = time.monotonic()
            patience = _LEAST_SECONDS if self._has_problem else _SIGN_SECONDS
            limit = max(began + _LEAST_SECONDS, self._sign_at + patience)
            if now > (limit if outcome == "finished" else min(limit, began + _STOPPED_SECONDS)):
                break
            time.sleep(0.02)
        self._read_signs()
        code = self._process.poll()
        self._kill()
        if self._is_gone or code == 0:
            return
        if code is not None:
            self._warn_of_end(code)
            return
        self._warn_of(
            self.name,
            message(
                "tracking.not-ended",
                "{recorded} of {logged} steps are recorded; it did not end in time, and was stopped",
                recorded=self._recorded_step,
                logged=self._logged_step,
            ),
        )

    def _warn_of_end(self, code: int | None) -> None:
        self._warn_of(
            self.name, message("tracking.process-ended", "its process has ended (code {code})", code=code)
        )

    def _kill(self) -> None:
        """End what is left of it: the library may have started others."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
            self._process.wait(1.0)

    def _write(self, text: bytes) -> None:
        if self._is_gone:
            return
        try:
            os.write(self._wakeups, text)
        except BlockingIOError:
            pass  # it does not read: what it finds in the pipe wakes it, too
        except OSError:
            self._is_gone = True
            self._read_signs()
            self._warn_of_end(self._process.poll())

    def _read_signs(self) -> None:
        """What it has said since the last time."""
        try:
            self._unread += os.read(self._signs, 1 << 16)
        except OSError:  # nothing
            return
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            sign = parse_json(line)
            self._sign_at, self._recorded_step = sign["at"], sign["step"]
            self._has_problem = bool(sign["problem"])
            if sign["problem"]:
                self._warn_of(self.name, sign["problem"])
