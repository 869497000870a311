"""Does a run's log hold every step once, in order, up to its last checkpoint?"""

from __future__ import annotations

from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.messages import Message, message

_CHECKED_KINDS = ("train", "eval")


def log_problem(log: Path, checkpoint: int, log_every: int | None, *, may_be_torn: bool) -> Message | None:
    """What is wrong with a log; None: nothing.

    Args:
        log: the file.
        checkpoint: the run's last one; 0: none.
        log_every: steps between two lines, by the recipe; None: not known.
        may_be_torn: the last line may be half written, by a run that trains or was killed; a resume mends it.

    Raises:
        OSError: it cannot be read.
    """
    latest = dict.fromkeys(_CHECKED_KINDS, 0)
    if not log.is_file():
        return message("runs.no-log", "is missing")
    with log.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            row = _read_row(line)
            if row is None:
                if may_be_torn and not line.endswith(b"\n"):
                    break
                return message("runs.bad-log-line", "line {line} is damaged", line=number)
            kind, step = row
            if kind not in latest:
                continue
            if problem := _order_problem(number, step, latest[kind], log_every if kind == "train" else None):
                return problem
            latest[kind] = step
    if log_every and latest["train"] < checkpoint - checkpoint % log_every:
        return message(
            "runs.short-log",
            "ends at step {step}, before the last checkpoint (step {checkpoint})",
            step=latest["train"],
            checkpoint=checkpoint,
        )
    return None


def _read_row(line: bytes) -> tuple[str, int] | None:
    try:
        row = parse_json(line)
        kind, step = row["kind"], row["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (kind, step) if isinstance(kind, str) and type(step) is int and line.endswith(b"\n") else None


def _order_problem(line: int, step: int, before: int, log_every: int | None) -> Message | None:
    if step == before:
        return message("runs.step-twice", "line {line}: step {step} stands there twice", line=line, step=step)
    if step < before:
        return message(
            "runs.step-back",
            "line {line}: step {step} comes after step {before}",
            line=line,
            step=step,
            before=before,
        )
    if log_every and step > before + log_every:
        return message(
            "runs.steps-missing",
            "line {line}: steps between {before} and {step} are missing",
            line=line,
            before=before,
            step=step,
        )
    return None
