"""Whatever a tracker does, the run goes on, ends in time, and nothing of it is left."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
from kovqa_core.tracking import guarded_tracker
from kovqa_core.tracking.guarded_tracker import RunTrackers
from kovqa_core.tracking.tracked_run import TrackedRun
from kovqa_core.tracking.trackers import TRACKERS, TrackerLibrary

BAD = TrackerLibrary("os", "nothing", "tests.tracking.bad_tracker")
KEY = "sk-secret-000111222"


def log_rows(path: Path, steps: range) -> None:
    with path.open("a") as stream:
        for step in steps:
            stream.write(f'{{"kind": "train", "step": {step}, "loss": {step}.5}}\n')


def tracked_run(folder: Path) -> TrackedRun:
    return TrackedRun(folder, folder / "log.jsonl", folder / "val_samples.jsonl", {"optim.lr": 0.1}, {})


def processes_of_group(leader: int) -> list[str]:
    """Those that run; one that has ended may wait for somebody to ask how."""
    done = subprocess.run(["ps", "-o", "stat=,args=", "-g", str(leader)], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("Z")]


@pytest.mark.parametrize(
    ("misdeed", "said"),
    [
        ("", None),
        ("leaves a thread and a process", None),
        ("raises when imported", "RuntimeError: broken installation"),
        ("raises at the beginning", r"ConnectionError: 401 for \*\*\* at https://\*\*\*@host/path"),
        ("raises at every record", "OSError: .*No space left"),
        ("asks for an end", "SystemExit: no key"),
        ("ends the process", r"its process has ended \(code (3|None)\)"),
        ("hangs at the beginning", "0 of 3 steps are recorded; it did not end in time"),
        ("hangs and holds Python's lock", "0 of 3 steps are recorded; it did not end in time"),
        ("hangs at the end", "did not end in time"),
    ],
)
def test_no_misdeed_reaches_the_run(
    misdeed: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "bad", BAD)
    monkeypatch.setenv("KOVQA_TEST_MISDEED", misdeed)
    monkeypatch.setenv("KOVQA_TEST_API_KEY", KEY)
    # Shorter for those that hang alone: a healthy one must not be cut off on a slow machine.
    monkeypatch.setattr(guarded_tracker, "_SIGN_SECONDS", 1.0 if "hangs" in misdeed else 30.0)
    drawn = random.getstate()
    warnings: list[str] = []
    trackers = RunTrackers(["bad"], tracked_run(tmp_path), 0, lambda note: warnings.append(str(note)))
    leader = trackers._processes[0]._process.pid
    began = time.monotonic()
    for step in (1, 2, 3):
        log_rows(tmp_path / "log.jsonl", range(step, step + 1))
        trackers.record(step, {"train/loss": step + 0.5})
    assert time.monotonic() - began < 1.0  # nothing was waited for
    if "hangs" in misdeed:
        time.sleep(0.3)  # it has come so far
    trackers.close("finished")
    assert random.getstate() == drawn
    assert processes_of_group(leader) == []
    assert KEY not in " ".join(warnings)
    if said is None:
        assert warnings == []
        assert '"train": 3' in (tmp_path / "tracking" / "bad.json").read_text()
    else:
        assert re.search(said, warnings[0]), warnings
        assert "the run goes on" in warnings[0]


def test_a_full_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many records as a hung tracker's pipe does not hold."""
    monkeypatch.setitem(TRACKERS, "bad", BAD)
    monkeypatch.setenv("KOVQA_TEST_MISDEED", "hangs at the beginning")
    monkeypatch.setattr(guarded_tracker, "_SIGN_SECONDS", 0.0)
    trackers = RunTrackers(["bad"], tracked_run(tmp_path), 0, lambda note: None)
    began = time.monotonic()
    for step in range(70_000):
        trackers.record(step, {})
    assert time.monotonic() - began < 20
    trackers.close("failed")


@pytest.mark.parametrize("obstacle", ["file", "pipe", "link to nothing"])
def test_what_stands_in_the_place_of_its_folder_is_a_warning(obstacle: str, tmp_path: Path) -> None:
    """A file called `tensorboard` once ended a run."""
    place = tmp_path / "tensorboard"
    if obstacle == "file":
        place.write_text("mine")
    elif obstacle == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "nowhere" / "else")
    (tmp_path / "tracking").write_text("mine, too")
    warnings: list[str] = []
    trackers = RunTrackers(["tensorboard", "mlflow"], tracked_run(tmp_path), 0, warnings.append)
    for step in range(20):
        trackers.record(step, {"train/loss": 1.0})
    trackers.close("finished")
    assert [warning.split(":")[1] for warning in warnings] == [" tensorboard", " mlflow"]


def test_a_full_disk_is_a_warning(tmp_path: Path) -> None:
    """tensorboardX's own writer would wait for ever at the eleventh record."""
    warnings: list[str] = []
    trackers = RunTrackers(["tensorboard"], tracked_run(tmp_path), 0, warnings.append)
    assert trackers._files is not None
    trackers._files._stream = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
    for step in range(20):
        trackers.record(step, {"train/loss": 1.0})
    trackers.close("finished")
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
