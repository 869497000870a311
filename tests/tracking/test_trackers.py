"""Trackers by name: what is refused before anything starts, and what is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.settings.recipe import TrainSettings
from kovqa_core.tracking.mlflow_tracker import adopt_artifacts
from kovqa_core.tracking.trackers import TRACKERS, check_trackers, tracking_notes


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        SettingsError, match=r"--set train.track=\[wandbb\]: unknown tracker 'wandbb'; did you mean wandb"
    ):
        check_trackers(["tensorboard", "wandbb"], "--set train.track=[wandbb]", installed_here=True)


def test_a_missing_library_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError) as caught:
        check_trackers(["wandb", "mlflow"], "recipe", installed_here=True)
    assert "wandb, mlflow" in caught.value.message
    assert "pip install 'kovqa[wandb]' 'kovqa[mlflow]'" in caught.value.hint
    check_trackers(["wandb"], "recipe", installed_here=False)  # the workers' Python is another


def test_one_name_is_a_list_of_one() -> None:
    assert TrainSettings(track="wandb").track == ("wandb",)  # type: ignore[arg-type]
    assert TrainSettings().track == ("tensorboard",)


def test_what_is_sent_where_is_said_and_no_key_in_it() -> None:
    folder = Path("/runs/r1")
    assert tracking_notes(["tensorboard"], folder, {}) == []
    offline = "\n".join(tracking_notes(list(TRACKERS), folder, {}))
    assert offline.count("nothing is sent") == 3
    assert "wandb sync /runs/r1/wandb/offline-run-*" in offline
    environ = {
        "WANDB_MODE": "online",
        "WANDB_API_KEY": "0123456789",
        "MLFLOW_TRACKING_URI": "https://me:pass@host",
        "TRACKIO_SERVER_URL": "https://host?write_token=abcdefg",
    }
    online = "\n".join(tracking_notes(list(TRACKERS), folder, environ))
    assert "nothing is sent" not in online
    assert "online (WANDB_MODE)" in online
    assert "https://***@host" in online
    assert not any(secret in online for secret in ("0123456789", "pass@", "abcdefg"))


def test_a_copy_of_mlflow_files_writes_into_itself(tmp_path: Path) -> None:
    run = tmp_path / "한 글" / "mlflow" / "5" / "ab"
    run.mkdir(parents=True)
    (run / "meta.yaml").write_text("artifact_uri: file:///old/mlflow/5/ab/artifacts\nrun_name: r\n")
    (run.parent / "meta.yaml").write_text("artifact_location: file:///old/mlflow/5\n")
    adopt_artifacts(run.parents[1])
    assert (run / "meta.yaml").read_text() == f"artifact_uri: {(run / 'artifacts').as_uri()}\nrun_name: r\n"
    assert (run.parent / "meta.yaml").read_text() == f"artifact_location: {run.parent.as_uri()}\n"
