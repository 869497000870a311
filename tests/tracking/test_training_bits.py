"""A run learns the same bits, whoever watches and however that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.runs.folder import read_result
from kovqa_core.tracking import guarded_tracker
from kovqa_core.tracking.tracked_run import TRACKING_FOLDER
from kovqa_core.tracking.trackers import TRACKERS
from kovqa_core.train.loop import run_training

from tests.conftest import Small
from tests.tracking.test_guarded_tracker import BAD
from tests.train.test_resume import ALONE, CPU, checkpoint_bytes, make_small_run, never_stop


def test_a_run_learns_the_same_bits_whoever_watches(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "bad", BAD)
    monkeypatch.setattr(guarded_tracker, "_SIGN_SECONDS", 0.0)
    runs = []
    for name, track, misdeed in (
        ("alone", [], ""),
        ("watched", ["bad", "tensorboard"], "raises at every record"),
    ):
        monkeypatch.setenv("KOVQA_TEST_MISDEED", misdeed)
        run = make_small_run(small, tmp_path / name, f"train.track={track}", "data.augment=randaug")
        if track:
            (run.folder / "tensorboard").write_text("in the way")
        run_training(run, ALONE, CPU, never_stop)
        runs.append(run)
    alone, watched = runs
    assert read_result(watched.folder) is not None
    assert checkpoint_bytes(alone) == checkpoint_bytes(watched)
    assert not (alone.folder / TRACKING_FOLDER).exists()
    images = list((watched.folder / TRACKING_FOLDER / "images").glob("*.jpg"))
    assert 1 <= len(images) <= 8  # what trackers show
