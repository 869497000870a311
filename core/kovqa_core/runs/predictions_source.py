"""The model and the run that gave the answers of a predictions file, by the record beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from kovqa_core.errors import KovqaError
from kovqa_core.evaluate.answers_record import read_answers_record
from kovqa_core.evaluate.metrics import metric_name
from kovqa_core.evaluate.model_source import LearningCurve, ModelSource
from kovqa_core.files import read_bytes
from kovqa_core.runs.events import EvaluationEvent, LoggedEvent, TrainStepEvent
from kovqa_core.runs.log_file import read_logged_events
from kovqa_core.runs.manifest import read_launches
from kovqa_core.runs.step_folders import is_step_name, step_number
from kovqa_core.settings.run import RUN_FILE, read_run


def find_predictions_source(predictions: Path) -> ModelSource:
    """What gave the answers of a predictions file, as far as it can be known; never an error.

    A run that has moved is not looked for, and of one in whose place another model lies now nothing is told.
    """
    try:
        written = datetime.fromtimestamp(predictions.stat().st_mtime).astimezone()
        source = ModelSource(answered=written.strftime("%Y-%m-%d %H:%M"))
        record = read_answers_record(predictions)
    except (KovqaError, OSError):
        return ModelSource()
    if record is None:
        return source
    fingerprint = record.fingerprint
    if "served" in fingerprint:
        return replace(source, gap="served", model=str(fingerprint["served"]))
    model = Path(str(fingerprint.get("model", "")))
    source = replace(source, model=model.name)
    if not is_step_name(model.name):
        return replace(source, gap="no run")
    source = replace(source, gap="gone", step=step_number(model.name), run=model.parent.name)
    try:
        if not (model.parent / RUN_FILE).is_file() or not model.is_dir():
            return source
        if hashlib.sha256(read_bytes(model / "kovqa.json")).hexdigest() != fingerprint.get("kovqa.json"):
            return replace(source, gap="changed")
        return _read_run_facts(source, model.parent)
    except (KovqaError, OSError):
        return replace(source, gap="unreadable")


def _read_run_facts(source: ModelSource, folder: Path) -> ModelSource:
    run, launches = read_run(folder / RUN_FILE), read_launches(folder)
    launch = launches[-1] if launches else None
    recipe = run.recipe
    metric = metric_name(recipe.eval.metric, recipe.task)
    curve = learning_curve(read_logged_events(folder), metric)
    return replace(
        source,
        gap="" if curve.losses or curve.scores else "no log",
        recipe=recipe.name,
        family=recipe.family,
        trained=(launch.ended or launch.began)[:16].replace("T", " ") if launch else "",
        version=launch.versions.get("kovqa", "") if launch else "",
        curve=curve,
    )


def learning_curve(events: Iterable[LoggedEvent], metric: str) -> LearningCurve:
    """The losses and scores of a log; what was done a second time after a stop counts as it was done last.

    Args:
        events: of the log, in its order.
        metric: of the run.
    """
    losses: dict[int, float] = {}
    scores: dict[int, float] = {}
    for event in events:
        if isinstance(event, TrainStepEvent):
            losses[event.step] = event.loss
        elif isinstance(event, EvaluationEvent):
            scores[event.step] = event.score
    return LearningCurve(sorted(losses.items()), sorted(scores.items()), metric)
