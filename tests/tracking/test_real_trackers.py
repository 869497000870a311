"""The libraries themselves, offline: what they have kept is what the log says. Where they are installed."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from kovqa_core.tracking import guarded_tracker
from kovqa_core.tracking.guarded_tracker import RunTrackers
from kovqa_core.tracking.tracked_run import TrackedRun

VARIABLES = ("WANDB_", "MLFLOW_", "TRACKIO_")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setattr(guarded_tracker, "_SIGN_SECONDS", 60.0)  # a first import may take its time


def track(name: str, folder: Path, *steps: int) -> None:
    """One launch of a run that logs these steps beside those that it has."""
    run = TrackedRun(
        folder, folder / "log.jsonl", folder / "val_samples.jsonl", {"optim.lr": 0.1}, {"git": "ab"}
    )
    trackers = RunTrackers([name], run, 0, lambda note: pytest.fail(str(note)))
    for step in steps:
        with run.log.open("a") as stream:
            stream.write(json.dumps({"kind": "train", "step": step, "loss": step + 0.5}) + "\n")
        trackers.record(step, {})
    trackers.close("finished")


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="not installed: pip install 'kovqa[mlflow]'")
    track("mlflow", tmp_path, 1, 2)
    track("mlflow", tmp_path, 3)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("kovqa").experiment_id])
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.5), (2, 2.5), (3, 3.5)]
    assert (run.data.params, run.data.tags["git"]) == ({"optim.lr": "0.1"}, "ab")
    assert (run.info.run_name, run.info.status) == (tmp_path.name, "FINISHED")


def test_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="not installed: pip install 'kovqa[trackio]'")
    track("trackio", tmp_path, 1, 2)
    track("trackio", tmp_path, 3)
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_id, step, metrics from metrics order by id").fetchall()
        (config,) = connection.execute("select config from configs").fetchone()
    assert [(step, json.loads(metrics)) for _, step, metrics in rows] == [
        (step, {"train/loss": step + 0.5}) for step in (1, 2, 3)
    ]
    assert len({run_id for run_id, *_ in rows}) == 1
    assert json.loads(config)["optim.lr"] == 0.1


def test_wandb(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="not installed: pip install 'kovqa[wandb]'")
    track("wandb", tmp_path, 1, 2)
    track("wandb", tmp_path, 3)
    first, second = sorted(
        (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    )  # one a launch, with one id
    assert (
        first.name
        == second.name
        == f"run-{json.loads((tmp_path / 'tracking/wandb.json').read_text())['id']}.wandb"
    )
    assert first.read_bytes()[:4] == second.read_bytes()[:4] == b":W&B"
    assert [b"train/loss" in file.read_bytes() for file in (first, second)] == [True, True]
