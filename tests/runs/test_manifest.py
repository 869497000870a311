"""What is written down of each launch: how it ended, with which code; nothing of it stops a training."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from kovqa_core.errors import KovqaError, Stopped, WorkerError
from kovqa_core.machine.versions import GitState, engine_git_state, git_state
from kovqa_core.runs.manifest import (
    MANIFEST_FILE,
    IndexFacts,
    index_facts,
    launch_fields,
    parse_time,
    read_launches,
    record_launch,
)
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import Run, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return make_run(load_recipe("tiny"), load_profile("cpu"), tmp_path / "run", ["kovqa", "train", "처음"])


def test_every_launch_has_its_entry(run: Run) -> None:
    (run.folder / "step-000004").mkdir()

    def stop() -> None:
        assert [launch.outcome for launch in read_launches(run.folder)] == [None]  # as after a kill
        (run.folder / "last").write_text("step-000004\n")
        raise Stopped("stopped at step 4 of 9")

    with pytest.raises(Stopped), record_launch(run):
        stop()
    with (
        pytest.raises(WorkerError),
        record_launch(run.model_copy(update={"argv": ["kovqa", "train", "--resume"]})),
    ):
        raise WorkerError("the loss is not finite at step 7", "lower optim.lr")
    with pytest.raises(KeyboardInterrupt), record_launch(run):
        raise KeyboardInterrupt
    with record_launch(run):
        pass
    launches = read_launches(run.folder)
    assert [launch.outcome for launch in launches] == ["stopped", "failed", "failed", "finished"]
    assert [(launch.from_step, launch.step) for launch in launches] == [(0, 4), (4, 4), (4, 4), (4, 4)]
    assert [launch.error for launch in launches] == [
        None, "the loss is not finite at step 7", "KeyboardInterrupt: ", None,
    ]  # fmt: skip
    assert launches[0].argv[-1] == "처음"
    assert launches[1].argv[-1] == "--resume"
    assert {"python", "torch", "kovqa"} <= launches[0].versions.keys()
    assert launches[0].machine is not None
    assert launches[0].machine.cores >= 1
    assert 0 < parse_time(launches[0].began) <= parse_time(launches[-1].ended or "")
    entries = json.loads((run.folder / MANIFEST_FILE).read_text("utf-8"))["launches"]
    assert entries == [json.loads(json.dumps(launch_fields(launch))) for launch in launches]


def test_entries_of_another_version_stay_as_they_are(run: Run) -> None:
    entries = [{"began": "2031-01-01T00:00:00+0900", "weather": "fine"}, {"from_step": "some"}]
    (run.folder / MANIFEST_FILE).write_text(json.dumps({"launches": entries}))
    assert [launch.began for launch in read_launches(run.folder)] == ["2031-01-01T00:00:00+0900"]
    with record_launch(run):
        pass
    written = json.loads((run.folder / MANIFEST_FILE).read_text("utf-8"))["launches"]
    assert written[:2] == entries
    assert written[2]["outcome"] == "finished"


def test_a_failure_is_told_even_where_its_end_cannot_be_written(run: Run) -> None:
    def lose_the_folder() -> None:
        (run.folder / MANIFEST_FILE).unlink()
        run.folder.rmdir()
        run.folder.write_text("a file now")
        raise WorkerError("what really happened")

    with pytest.raises(WorkerError, match="what really happened"), record_launch(run):
        lose_the_folder()


def test_a_folder_that_cannot_be_written_is_said_before_training(run: Run) -> None:
    run.folder.rmdir()
    run.folder.write_text("a file")
    with pytest.raises(KovqaError, match="cannot write"), record_launch(run):
        raise AssertionError("trained all the same")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"launches": 3}', '{"launches": [1, null]}', "\x00\xff"])
def test_a_broken_manifest_stops_nothing(run: Run, text: str) -> None:
    (run.folder / MANIFEST_FILE).write_text(text, "latin-1")
    assert read_launches(run.folder) == []
    with record_launch(run):
        pass
    assert [launch.outcome for launch in read_launches(run.folder)] == ["finished"]


def test_git_says_commit_and_whether_files_changed(tmp_path: Path) -> None:
    here = tmp_path / "저장소"
    here.mkdir()

    def do(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_state(here) is None
    do("init", "-q")
    assert git_state(here) is None  # no commit yet
    (here / "a").write_text("1")
    do("add", "a")
    do("commit", "-qm", "one")
    (here / "new").write_text("not known to git")
    assert git_state(here) == GitState(do("rev-parse", "HEAD"), dirty=False)
    (here / "a").write_text("2")
    assert git_state(here) == GitState(do("rev-parse", "HEAD"), dirty=True)


@pytest.mark.parametrize(
    ("key", "value", "dirty"),
    [
        ("core.fsmonitor", "./marker.sh", False),
        ("filter.x.clean", "./marker.sh", None),
        ("remote.o.promisor", "true", None),
        ("extensions.partialClone", "o", None),
        ("user.name", "a", False),
    ],
)
def test_no_command_of_a_checkout_runs(tmp_path: Path, key: str, value: str, dirty: bool | None) -> None:
    """Git does what `.git/config` says, and that may have come with downloaded data."""

    def do(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    do("init", "-q")
    (tmp_path / "marker.sh").write_text("#!/bin/sh\ntouch ran\ncat\n")
    (tmp_path / "marker.sh").chmod(0o755)
    (tmp_path / ".gitattributes").write_text("a filter=x\n")
    (tmp_path / "a").write_text("1")
    do("add", ".")
    do("commit", "-qm", "one")
    do("config", key, value)
    os.utime(tmp_path / "a", (1, 1))  # git looks at the bytes again
    state = git_state(tmp_path)
    assert state is not None
    assert state.dirty is dirty
    assert not (tmp_path / "ran").exists()


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path.cwd()) is None
    assert engine_git_state() is None


def test_data_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert index_facts(None) == IndexFacts(None, None, None)
    (tmp_path / "index.json").write_text("{")
    assert index_facts(str(tmp_path)) == IndexFacts(str(tmp_path))
