"""What is written down of each launch: how it ended, with which code; nothing of it stops a training."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from kovqa_core.errors import KovqaError, Stopped, WorkerError
from kovqa_core.machine.versions import engine_git_state, git_state
from kovqa_core.runs.manifest import MANIFEST_FILE, index_facts, parse_time, read_launches, record_launch
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import Run, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return make_run(load_recipe("tiny"), load_profile("cpu"), tmp_path / "run", ["kovqa", "train", "처음"])


def test_every_launch_has_its_entry(run: Run) -> None:
    (run.folder / "step-000004").mkdir()

    def stop() -> None:
        assert [entry.get("outcome") for entry in read_launches(run.folder)] == [None]  # as after a kill
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
    entries = read_launches(run.folder)
    assert [entry["outcome"] for entry in entries] == ["stopped", "failed", "failed", "finished"]
    assert [(entry["from_step"], entry["step"]) for entry in entries] == [(0, 4), (4, 4), (4, 4), (4, 4)]
    assert [entry.get("error", "") for entry in entries] == [
        "", "the loss is not finite at step 7", "KeyboardInterrupt: ", "",
    ]  # fmt: skip
    assert entries[0]["argv"][-1] == "처음"
    assert entries[1]["argv"][-1] == "--resume"
    assert {"python", "torch", "kovqa"} <= entries[0]["versions"].keys()
    assert entries[0]["machine"]["cores"] >= 1
    assert 0 < parse_time(entries[0]["began"]) <= parse_time(entries[-1]["ended"])


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
    assert [entry["outcome"] for entry in read_launches(run.folder)] == ["finished"]


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
    assert git_state(here) == {"commit": do("rev-parse", "HEAD"), "dirty": False}
    (here / "a").write_text("2")
    assert git_state(here) == {"commit": do("rev-parse", "HEAD"), "dirty": True}


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path.cwd()) is None
    assert engine_git_state() is None


def test_data_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert index_facts(None) == {"index": None, "fingerprint": None, "rows": None}
    (tmp_path / "index.json").write_text("{")
    assert index_facts(str(tmp_path))["fingerprint"] is None
