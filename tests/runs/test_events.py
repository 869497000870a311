"""Events of the first worker: a line written is the event read; other lines are none."""

from __future__ import annotations

import json

import pytest
from kovqa_core.runs import events
from kovqa_core.runs.events import WorkerEvent, event_fields, event_line, parse_event

EVENTS: list[WorkerEvent] = [
    events.StartEvent(0, 20, "새 모델"),
    events.TrainProgressEvent(3, 20, 1.5, 80.0, 12.5),
    events.TimeLeftEvent(50, 1000, 0.25, 237.5, 1.5),
    events.AnswerProgressEvent(30, 100),
    events.AnswerProgressEvent(30, 100, "evaluation"),
    events.TrainStepEvent(10, 1.25, None, 1e-3, 80.0),
    events.TrainStepEvent(10, 1.25, 0.5, 1e-3, 80.0, 3, 65536.0),
    events.EvaluationEvent(20, "vqa", 0.5, 0.75, 100, 2.5, "accuracy"),
    events.SavedEvent(20, "runs/r/step-000020"),
    events.WaitingEvent("waiting for the other nodes"),
    events.WarningEvent("the clock of a is ahead"),
    events.MemoryFitEvent(0, 8, 2, 32),
    events.EndEvent(20, 0.75, 0.5, 12.5),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_its_line(event: WorkerEvent) -> None:
    assert parse_event(event_line(event)) == event


def test_every_kind_is_tried() -> None:
    assert {type(event) for event in EVENTS} == set(events._EVENT_TYPES)


def test_keys_are_those_of_the_log() -> None:
    assert event_fields(events.TrainStepEvent(10, 1.25, None, 1e-3, 80.0)) == {
        "kind": "train", "step": 10, "loss": 1.25, "grad_norm": None, "lr": 1e-3, "examples_per_second": 80.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "loading",
        "{no event}",
        '{"kind": "train", "note": "x"}',
        '{"step": 1}',
        '{"kind": "later", "step": 1}',
    ],
)
def test_other_lines_are_no_events(line: str) -> None:
    assert parse_event(line) is None


def test_an_evaluation_of_an_earlier_version_has_no_metric() -> None:
    row = {"kind": "eval", "step": 4, "task": "vqa", "score": 0.5, "best": 0.5, "rows": 9, "seconds": 1.0}
    event = parse_event(json.dumps({**row, "more": 1}))
    assert event == events.EvaluationEvent(4, "vqa", 0.5, 0.5, 9, 1.0)
