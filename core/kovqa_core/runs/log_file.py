"""`log.jsonl` of a run: read line by line, and what of it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.files import read_bytes
from kovqa_core.messages import Message, message
from kovqa_core.runs.events import EvaluationEvent, LoggedEvent, parse_event, read_event
from kovqa_core.runs.folder import LOG_FILE


def read_logged_events(folder: Path) -> list[LoggedEvent]:
    """Events of a run's log; lines of other versions, and what cannot be read, are left out (`log_problems`)."""
    try:
        lines = _log_lines(folder / LOG_FILE)
    except (DataError, OSError):
        return []
    return [event for event in map(parse_event, lines) if isinstance(event, LoggedEvent)]


def _log_lines(path: Path) -> list[str]:
    # By "\n" alone: a text may hold other line ends.
    return read_bytes(path).decode("utf-8", "replace").split("\n") if path.is_file() else []


def log_problems(folder: Path) -> Iterator[Message]:
    """What `read_logged_events` leaves out because it cannot be read."""
    path, bad = folder / LOG_FILE, []
    try:
        if os.path.lexists(path) and not path.is_file():
            yield message("runs.log-not-a-file", "{file} is not a file", file=path)
        lines = _log_lines(path)
    except (DataError, OSError) as error:
        problem: object = error.message if isinstance(error, DataError) else error
        yield message("runs.log-unreadable-file", "the log is not known: {problem}", problem=problem)
        return
    for number, line in enumerate(lines[:-1], 1):  # the last one has no end: a kill may have torn it
        try:
            read_event(line)
        except ValueError as error:
            bad.append((number, error))
    if bad:
        yield message(
            "runs.log-unreadable", "{file}:{line}: not a line of a log ({problem}); of such lines there are {count}",
            file=path, line=bad[0][0], problem=bad[0][1], count=len(bad),
        )  # fmt: skip


def latest_step(events: Sequence[LoggedEvent]) -> int:
    """Optimizer steps done by the last of them."""
    return max((event.step for event in events), default=0)


def read_evaluations(folder: Path) -> list[EvaluationEvent]:
    """Evaluations of a run's log, oldest first."""
    return evaluations_of(read_logged_events(folder))


def evaluations_of(events: Sequence[LoggedEvent]) -> list[EvaluationEvent]:
    """Those of them that scored the validation split."""
    return [event for event in events if isinstance(event, EvaluationEvent)]
