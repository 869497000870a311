"""Which run gave the answers of a predictions file, and why that is not known."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from kovqa_core.evaluate.answers_record import AnswersRecord, write_answers_record
from kovqa_core.evaluate.model_source import LearningCurve
from kovqa_core.runs.events import EvaluationEvent, TrainStepEvent
from kovqa_core.runs.folder import LOG_FILE
from kovqa_core.runs.predictions_source import find_predictions_source, learning_curve


def test_what_was_done_twice_counts_as_it_was_done_last() -> None:
    events = [
        TrainStepEvent(10, 3.0, 1.0, 0.1, 5.0),
        TrainStepEvent(20, 2.0, 1.0, 0.1, 5.0),
        EvaluationEvent(20, "vqa", 0.25, 0.25, 4, 1.0),
        TrainStepEvent(20, 1.5, 1.0, 0.1, 5.0),  # after a stop at step 10
        EvaluationEvent(20, "vqa", 0.5, 0.5, 4, 1.0),
    ]
    curve = learning_curve(events, "accuracy")
    assert curve == LearningCurve([(10, 3.0), (20, 1.5)], [(20, 0.5)], "accuracy")


@pytest.fixture
def answered(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A predictions file with its record, and a copy of the run that it names."""
    run = tmp_path / "학습 1"
    shutil.copytree(trained, run)
    step = run / (run / "best").read_text().strip()
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": 1, "answer": "예"}\n')
    digest = hashlib.sha256((step / "kovqa.json").read_bytes()).hexdigest()
    write_answers_record(path, path.read_bytes(), AnswersRecord({"model": str(step), "kovqa.json": digest}))
    return path, run


def test_the_run_of_a_predictions_file(answered: tuple[Path, Path]) -> None:
    path, run = answered
    logged = [json.loads(line) for line in (run / LOG_FILE).read_text().splitlines()]
    source = find_predictions_source(path)
    assert (source.gap, source.model, source.step, source.run) == ("", "step-000006", 6, "학습 1")
    assert (source.recipe, source.family, source.curve.metric) == ("tiny", "beit3", "accuracy")
    assert source.curve.scores == [
        (event["step"], event["score"]) for event in logged if event["kind"] == "eval"
    ]
    assert source.curve.losses == [
        (event["step"], event["loss"]) for event in logged if event["kind"] == "train"
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", source.trained)
    assert source.version


def test_what_is_not_known_is_named(answered: tuple[Path, Path], tmp_path: Path) -> None:
    path, run = answered
    (run / LOG_FILE).write_text("torn")
    assert find_predictions_source(path).gap == "no log"
    (run / "run.yaml").write_text("[")
    assert find_predictions_source(path).gap == "unreadable"
    (run / "step-000006" / "kovqa.json").write_text("{}")
    changed = find_predictions_source(path)
    assert (changed.gap, changed.recipe) == ("changed", ""), "nothing of another model's run"
    shutil.rmtree(run)
    gone = find_predictions_source(path)
    assert (gone.gap, gone.run, gone.step) == ("gone", "학습 1", 6)
    path.write_text('{"id": 1, "answer": "아니요"}\n')
    edited = find_predictions_source(path)
    assert (edited.gap, edited.model) == ("no record", "")
    assert edited.answered
    for fingerprint, gap, model in (
        ({"served": "어떤/모델"}, "served", "어떤/모델"),
        ({"model": str(tmp_path / "hf")}, "no run", "hf"),
    ):
        write_answers_record(path, path.read_bytes(), AnswersRecord(fingerprint))
        source = find_predictions_source(path)
        assert (source.gap, source.model) == (gap, model)
    path.with_name(".p.jsonl.json").write_text("{")
    assert find_predictions_source(path).gap == "no record"
