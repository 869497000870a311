"""MLflow: files in the run folder, or the server that `MLFLOW_TRACKING_URI` names."""

from __future__ import annotations

import base64
import html
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kovqa_core.files import write_text
from kovqa_core.messages import Message, message
from kovqa_core.tracking.secret_texts import without_secrets
from kovqa_core.tracking.tracked_run import PROJECT, LoggedValues, ShownSample, TrackedRun, TrackerState

_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # of one request
_MOST_LETTERS = 6000  # of a parameter's value
_ARTIFACT_LINE = re.compile(r"^(artifact_(?:location|uri): )file:.*$", re.MULTILINE)
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "killed": "KILLED"}


def destination(folder: Path, environ: Mapping[str, str]) -> Message:
    """Where its records go."""
    if uri := environ.get(_URI_VARIABLE):
        return message("tracking.mlflow-server", "mlflow: sent to {uri}", uri=without_secrets(uri, environ))
    return message(
        "tracking.mlflow-files",
        "mlflow: files in {folder}, nothing is sent; look: MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri "
        "{folder}",
        folder=folder / "mlflow",
    )


def set_variables(run: TrackedRun) -> None:
    """Before the library is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # on by default
    # Without it a folder is refused: it gets no new features. It needs neither a database nor its locks.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    # Its own 7 tries of up to 120 s, each longer after the last, would be told of after many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault(_URI_VARIABLE, (run.folder / "mlflow").as_uri())


def open_tracker(run: TrackedRun, state: TrackerState, warn: Callable[[str], None]) -> MlflowRun:
    """Begin the run, or go on with it."""
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

    adopt_artifacts(run.folder / "mlflow")
    client = MlflowClient(tracking_uri=os.environ[_URI_VARIABLE])
    if state.run_id:
        client.update_run(state.run_id, status="RUNNING")
        return MlflowRun(client, state.run_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    state.run_id = client.create_run(
        experiment_id, run_name=run.folder.name, tags={**run.tags, "kovqa.id": state.id}
    ).info.run_id
    params = [Param(key, str(value)[:_MOST_LETTERS]) for key, value in run.config.items()]
    for part in _parts(params, _MOST_PARAMS):
        client.log_batch(state.run_id, params=part)
    return MlflowRun(client, state.run_id)


def adopt_artifacts(store: Path) -> None:
    """Let files of MLflow that were copied or moved name their own folder.

    It keeps the whole path of artifacts (mlflow 3.17): a copy of a run would write into the folder of the first one.
    """
    for path in [*store.glob("*/meta.yaml"), *store.glob("*/*/meta.yaml")]:
        is_experiment = path.parent.parent == store
        place = path.parent if is_experiment else path.parent / "artifacts"
        text = path.read_text("utf-8")
        own = _ARTIFACT_LINE.sub(rf"\g<1>{place.as_uri()}", text)
        if own != text:
            write_text(path, own)


class MlflowRun:
    """A run of MLflow."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._id = client, run_id

    def add_values(self, rows: list[LoggedValues]) -> None:
        """Record points of curves."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(key, value, now, row.step) for row in rows for key, value in row.values.items()]
        for part in _parts(points, _MOST_METRICS):
            self._client.log_batch(self._id, metrics=part)

    def add_samples(self, step: int, samples: list[ShownSample]) -> None:
        """Show what was answered at an evaluation: a page of its own, with the images in it."""
        figures = [
            f'<figure><img src="data:image/jpeg;base64,{base64.b64encode(sample.image.read_bytes()).decode()}">'
            f"<figcaption>{html.escape(sample.caption)}</figcaption></figure>"
            for sample in samples
        ]
        page = "<!doctype html><meta charset=utf-8>" + "\n".join(figures)
        self._client.log_text(self._id, page, f"samples/step-{step:06d}.html")

    def finish(self, outcome: str, summary: Mapping[str, float]) -> None:
        """End the run."""
        for key, value in summary.items():
            self._client.log_metric(self._id, key, value)
        self._client.set_terminated(self._id, _STATUS[outcome])


def _parts(values: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [values[start : start + most] for start in range(0, len(values), most)]
