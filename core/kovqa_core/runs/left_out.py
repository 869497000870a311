"""Rows that a run did not learn from: those its index left out, and those its training did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.left_out import is_worth_a_warning, left_out_text, training_reasons
from kovqa_core.errors import KovqaError
from kovqa_core.index.left_out import LeftOut
from kovqa_core.index.report import IndexReport, read_report
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.runs.events import EvaluationEvent, TrainStepEvent
from kovqa_core.runs.log_file import read_logged_events
from kovqa_core.settings.run import Run


@dataclass(frozen=True)
class RunLeftOut:
    """Rows left out of a run.

    Attributes:
        training: of the steps that are logged: unreadable, too long for the model, or without an answer.
        trained: rows of these steps, those left out too; a row counts in every epoch.
        index: the report of the index, where it still is; None elsewhere.
        unreadable: of those of training, rows that cannot be read.
        first_fault: what is wrong with the first of them; "" where none is.
        validation: rows that the last evaluation could not read, and did not score.
        evaluated: rows of its split, these too.
    """

    training: int
    trained: int
    index: IndexReport | None
    unreadable: int = 0
    first_fault: str = ""
    validation: int = 0
    evaluated: int = 0

    def json_fields(self) -> dict[str, object]:
        """For `--json`."""
        index = self.index.counts.left_out if self.index else ()
        return {
            "training": self.training,
            "of_rows": self.trained,
            "index": {each.reason: each.count for each in index},
            "unreadable": self.unreadable,
            "first_unreadable": self.first_fault,
            "validation": self.validation,
        }

    def lines(self) -> list[Message]:
        """For people; nothing where nothing was left out."""
        lines = index_lines(self.index)
        if self.training:
            lines.append(
                message(
                    "runs.left-out-of-training", "training: {text}",
                    text=left_out_text(
                        self.training, self.trained,
                        training_reasons(self.unreadable, self.training - self.unreadable, self.first_fault),
                    ),
                )
            )  # fmt: skip
        if self.validation:
            lines.append(
                message(
                    "runs.left-out-of-validation", "validation: {text}; they are not scored",
                    text=left_out_text(self.validation, self.evaluated),
                )
            )  # fmt: skip
        return lines


def read_run_left_out(folder: Path, run: Run) -> RunLeftOut:
    """What was left out of a run; never fails.

    Args:
        folder: the run folder.
        run: its settings.
    """
    events = read_logged_events(folder)
    steps = [event for event in events if isinstance(event, TrainStepEvent)]
    evaluations = [event for event in events if isinstance(event, EvaluationEvent)]
    trained = max((event.step for event in steps), default=0) * run.recipe.optim.global_batch
    validation = evaluations[-1].left_out or 0 if evaluations else 0
    return RunLeftOut(
        sum(event.left_out or 0 for event in steps),
        trained,
        read_index_report(run),
        unreadable=sum(event.unreadable or 0 for event in steps),
        first_fault=next((fault for event in steps for fault in event.faults or ()), ""),
        validation=validation,
        evaluated=evaluations[-1].rows + validation if evaluations else 0,
    )


def read_index_report(run: Run) -> IndexReport | None:
    """The report of a run's index; None where it is not here."""
    try:
        return read_report(Path(run.recipe.data.index or ""))
    except KovqaError:
        return None


def index_lines(report: IndexReport | None) -> list[Message]:
    """What an index left out: for faults, and by its class list."""
    if report is None:
        return []
    left_out = report.counts.left_out
    faults = _reasons(each for each in left_out if each.is_fault)
    uncovered = _reasons(each for each in left_out if not each.is_fault)
    lines = []
    if faults:
        lines.append(
            message(
                "runs.left-out-of-index", "index: {text}",
                text=left_out_text(report.faults, report.all_rows, faults),
            )
        )  # fmt: skip
    if uncovered:
        lines.append(message("runs.not-covered", "index: not covered by its classes: {rows}", rows=uncovered))
    return lines


def _reasons(left_out: Iterable[LeftOut]) -> Message:
    """Why rows are not in an index, with their numbers."""
    return join_messages(
        ", ",
        (
            message("runs.rows-left-out", "{reason} {count:,}", reason=each.reason, count=each.count)
            for each in left_out
        ),
    )


def index_warning(report: IndexReport | None) -> Message | None:
    """That an index lacks more than 1 % of its rows for faults; it was written all the same, so no error."""
    if report is None or not is_worth_a_warning(report.faults, report.all_rows):
        return None
    return message(
        "runs.index-warning",
        "the index lacks rows: {text}",
        text=left_out_text(report.faults, report.all_rows),
    )
