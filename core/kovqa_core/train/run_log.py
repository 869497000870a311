"""What a run reports: `log.jsonl`, curves of trackers, and events for whoever watches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import DataError, Stopped
from kovqa_core.files import atomic_file, disk_errors, read_bytes
from kovqa_core.messages import message
from kovqa_core.messages.one_line import escape_one_line
from kovqa_core.runs.events import (
    EVENTS_VARIABLE,
    AnswerProgressEvent,
    LoggedEvent,
    TrainProgressEvent,
    WarningEvent,
    WorkerEvent,
    event_fields,
    event_line,
)
from kovqa_core.runs.folder import LOG_FILE
from kovqa_core.settings.run import Run
from kovqa_core.tracking.guarded_tracker import RunTrackers
from kovqa_core.train.tracked_run import describe_run

_REPORT_INTERVAL = 0.2  # seconds between two reports of progress
_LAUNCHER_GONE = 143  # exit code, as after SIGTERM


class RunLog:
    """Log and events of one run; only the first process writes.

    Args:
        run: what is trained.
        step: the step training goes on from: what an interrupted run logged beyond it is removed,
            because it will be done again.
        is_main_process: is this the first process?
        evaluation_due: that step's evaluation will be done again, too.
    """

    def __init__(self, run: Run, step: int, *, is_main_process: bool, evaluation_due: bool) -> None:
        self.path, self.is_main_process = run.folder / LOG_FILE, is_main_process
        self._last_report = 0.0
        self._events = sys.stdout  # as it is now: while a thread saves, a library may send stdout elsewhere
        if is_main_process:
            truncate_log(self.path, step, evaluation_due=evaluation_due)
            self._trackers = RunTrackers(
                run.recipe.train.track,
                describe_run(run),
                step,
                lambda note: self.emit_event(WarningEvent(note)),
            )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run in its trackers, however it ended."""
        self.close("finished" if error is None else "stopped" if isinstance(error, Stopped) else "failed")

    def close(self, outcome: str = "finished") -> None:
        """End the run in its trackers: it is finished, stopped or failed."""
        if self.is_main_process:
            self._trackers.close(outcome)

    def log_record(self, event: LoggedEvent) -> None:
        """One line of the log, also reported to whoever watches."""
        if not self.is_main_process:
            return
        values = event_fields(event)
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")
        self._trackers.record(
            event.step, {f"{event.kind}/{k}": v for k, v in values.items() if isinstance(v, float)}
        )
        self.emit_event(event)

    def report_progress(self, event: TrainProgressEvent | AnswerProgressEvent) -> None:
        """Where the run is, at most five times a second; not logged."""
        if self.is_main_process and time.monotonic() - self._last_report > _REPORT_INTERVAL:
            self._last_report = time.monotonic()
            self.emit_event(event)

    def emit_event(self, event: WorkerEvent) -> None:
        """Report an event: as a JSON line to `kovqa train`, or as text to a person who started a worker."""
        if not self.is_main_process:
            return
        if os.environ.get(EVENTS_VARIABLE):
            try:
                print(event_line(event), file=self._events, flush=True)
            except BrokenPipeError:
                # `kovqa train` was killed: nothing would stop this run any more, and its last checkpoint is
                # whole. Not an exception: it would be reported as a failure of the run.
                os._exit(_LAUNCHER_GONE)
        elif event.kind != "progress":
            print(_event_text(event_fields(event)), file=sys.stderr, flush=True)


def _event_text(values: Mapping[str, object]) -> str:
    cells = (f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
    return escape_one_line("  ".join(cells)).removeprefix("kind ")


def truncate_log(path: Path, step: int, *, evaluation_due: bool) -> None:
    """Keep the lines up to a step, with its evaluation unless that is done again.

    A line that cannot be read stays where it is; only the last line, which a kill tears, goes.

    Raises:
        DataError: the log is not a file, or cannot be read.
    """
    if not os.path.lexists(path):
        return
    if not path.is_file():  # a pipe would be waited for
        raise DataError(message("train.log-not-a-file", "{file} is not a file", file=path))
    *lines, torn = read_bytes(path).split(b"\n")
    kept_lines = []
    for line in lines if _logged_step(torn) is None else [*lines, torn]:
        logged = _logged_step(line)
        done_again = logged == (step, "eval") and evaluation_due
        if logged is None or (logged[0] <= step and not done_again):
            kept_lines.append(line + b"\n")
        elif logged[0] > step:
            break  # what follows was done after it
    with atomic_file(path) as stream:
        stream.write(b"".join(kept_lines))


def _logged_step(line: bytes) -> tuple[int, str] | None:
    """Step and kind of a line; None: it cannot be read."""
    try:
        row = parse_json(line)
        return int(row["step"]), str(row.get("kind"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
