"""Events of a run: lines of its log, and what its first worker reports to the process that started it.

Both are JSON lines. TrainStepEvent, EvaluationEvent and MemoryFitEvent are logged too (`log.jsonl`), so
one form serves the writers (`train/run_log.py`, `answer/local.py`), the launcher and `kovqa runs`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar, Literal

from pydantic import FiniteFloat

from kovqa_core.bounded_json import parse_json
from kovqa_core.messages import message
from kovqa_core.messages.languages import show_text
from kovqa_core.messages.packed import pack_texts, unpack_texts
from kovqa_core.settings.json_file import check_content

EVENTS_VARIABLE = "KOVQA_EVENTS"  # set by the launcher: events go to stdout as JSON lines


@dataclass(frozen=True)
class StartEvent:
    """Training begins, at `step` of `total`; `note` says from which weights."""

    kind: ClassVar[str] = "start"
    step: int
    total: int
    note: str


@dataclass(frozen=True)
class TrainProgressEvent:
    """Where training is; shown, not logged.

    Attributes:
        step, total: optimizer steps done and in all.
        loss: of the latest step, mean over the global batch.
        rate: examples per second since training began.
        left: seconds that remain at this rate.
        left_out: examples that could not be learned from since training began; None where there were none.
    """

    kind: ClassVar[str] = "progress"
    step: int
    total: int
    loss: float
    rate: float
    left: FiniteFloat
    left_out: int | None = None


@dataclass(frozen=True)
class TimeLeftEvent:
    """How long training takes, by the clock of a launch's first steps; shown, not logged: it is of that launch.

    Attributes:
        step, total: optimizer steps done and in all.
        seconds: of one step, without those before the clock began.
        left: seconds for the steps that are left, without evaluations.
        energy_kwh: that the boards of its GPUs draw at most for all steps; None: not known.
    """

    kind: ClassVar[str] = "time"
    step: int
    total: int
    seconds: FiniteFloat
    left: FiniteFloat
    energy_kwh: float | None = None


@dataclass(frozen=True)
class AnswerProgressEvent:
    """How many rows of a split or table are answered; shown, not logged."""

    kind: ClassVar[str] = "progress"
    done: int
    of: int
    stage: str = "answering"


@dataclass(frozen=True)
class TrainStepEvent:
    """Means since the last such event, every `log_every` steps.

    Attributes:
        step: optimizer steps done.
        loss: mean over steps.
        grad_norm: global norm before clipping, of the latest step; None: not finite, the step was skipped.
        lr: of the latest step.
        examples_per_second: on all processes together.
        left_out: examples that could not be learned from; None where there were none.
        loss_scale: in fp16.
        unreadable: of those left out, rows that cannot be read; None where there were none.
        faults: what is wrong with the first of them, and with which.
    """

    kind: ClassVar[str] = "train"
    step: int
    loss: float
    grad_norm: float | None
    lr: float
    examples_per_second: float
    left_out: int | None = None
    loss_scale: float | None = None
    unreadable: int | None = None
    faults: list[str] | None = None


@dataclass(frozen=True)
class EvaluationEvent:
    """The validation split was scored.

    Attributes:
        step: optimizer steps done.
        task: "vqa" or "caption".
        score: by the run's metric.
        best: the best score so far, this one included.
        rows: that were scored.
        seconds: that answering and scoring took.
        metric: name in the table of metrics; None in logs of earlier versions: the task's default.
        left_out: rows of the split that cannot be read, and are not scored; None where there are none.
    """

    kind: ClassVar[str] = "eval"
    step: int
    task: Literal["vqa", "caption"]
    score: float
    best: float
    rows: int
    seconds: float
    metric: str | None = None
    left_out: int | None = None


@dataclass(frozen=True)
class SavedEvent:
    """A checkpoint was written, to the step folder `path`."""

    kind: ClassVar[str] = "saved"
    step: int
    path: str


@dataclass(frozen=True)
class WaitingEvent:
    """The launcher waits: for other nodes, or for a queue."""

    kind: ClassVar[str] = "waiting"
    note: str


@dataclass(frozen=True)
class WarningEvent:
    """Something a person should know; the work goes on."""

    kind: ClassVar[str] = "warning"
    note: str


@dataclass(frozen=True)
class MemoryFitEvent:
    """The micro-batch at which a step fits into memory (`--micro-batch auto`).

    Attributes:
        step: optimizer steps done.
        micro_batch: examples of one forward pass of one process.
        accumulate: forward passes of one process per optimizer step.
        tried_first: the micro-batch that was tried first.
    """

    kind: ClassVar[str] = "fit"
    step: int
    micro_batch: int
    accumulate: int
    tried_first: int


@dataclass(frozen=True)
class EndEvent:
    """Training is finished; the rest stands in `result.json`."""

    kind: ClassVar[str] = "end"
    step: int
    best_score: float | None
    last_score: float | None
    seconds: FiniteFloat


LoggedEvent = TrainStepEvent | EvaluationEvent | MemoryFitEvent
WorkerEvent = (
    LoggedEvent
    | StartEvent
    | TrainProgressEvent
    | TimeLeftEvent
    | AnswerProgressEvent
    | SavedEvent
    | WaitingEvent
    | WarningEvent
    | EndEvent
)

_EVENT_TYPES: tuple[type[WorkerEvent], ...] = WorkerEvent.__args__


def event_fields(event: WorkerEvent) -> dict[str, object]:
    """An event as a JSON object: its kind, then its fields; optional ones only where they have a value."""
    values = asdict(event)
    for field in fields(event):
        if field.default is None and values[field.name] is None:
            del values[field.name]
    return {"kind": event.kind, **values}


def event_line(event: WorkerEvent) -> str:
    """An event as one line of JSON, without the line's end; messages in it keep their keys."""
    values = event_fields(event)
    packed = {name: packed for name, value in values.items() if (packed := pack_texts(value))}
    return json.dumps({**values, "packed": packed} if packed else values, ensure_ascii=False)


def report_warning(note: str) -> None:
    """Say what a person should know: on stderr, and to the launcher if this process is one of a run."""
    print(f"kovqa: {show_text(note)}", file=sys.stderr, flush=True)
    if os.environ.get(EVENTS_VARIABLE):
        print(event_line(WarningEvent(note)), flush=True)


def parse_event(line: str) -> WorkerEvent | None:
    """The event of a line; None for any other line (libraries print to stdout, too).

    Keys that an event does not have are ignored: files of later versions may hold more.
    """
    try:
        return read_event(line)
    except ValueError:
        return None


def read_event(line: str) -> WorkerEvent | None:
    """The event of a line; None for one of a kind that this version does not know.

    Raises:
        ValueError: it is not a line of JSON, or a value has another type; says which.
    """
    if not line.startswith('{"'):
        raise ValueError(message("runs.no-event", "no event"))
    values = parse_json(line)
    kind = values.get("kind")
    problem: ValueError | None = None
    for event_type in _EVENT_TYPES:
        if kind == event_type.kind:  # two of them are called progress
            try:
                return _unpack_texts(check_content(values, event_type), values.get("packed"))
            except ValueError as error:
                problem = problem or error
    if problem is not None:
        raise problem
    return None


def _unpack_texts(event: WorkerEvent, packed: object) -> WorkerEvent:
    """An event with the messages that stand beside its texts."""
    if not isinstance(packed, dict):
        return event
    texts = {
        field.name: unpack_texts(getattr(event, field.name), packed[field.name])
        for field in fields(event)
        if field.name in packed
    }
    return replace(event, **texts)
