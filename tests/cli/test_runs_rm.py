"""kovqa runs rm: whole runs go, and only those in which nobody works."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest
from kovqa_core.runs.slurm_job import SlurmJob, write_slurm_job

from tests.conftest import Kovqa
from tests.runs.run_folders import copy_run
from tests.tools.forked_commands import ForkedCommands


@pytest.fixture
def runs(tmp_path: Path, trained: Path) -> Path:
    """A folder with three finished runs."""
    for name in ("첫실험", "second", "third"):
        copy_run(trained, tmp_path / "runs" / name)
    return tmp_path / "runs"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_runs_are_removed_with_all_that_is_in_them(kovqa: Kovqa, runs: Path) -> None:
    shown = kovqa("runs", "rm", "첫실험", "second", "-n")
    assert (shown.returncode, names(runs)) == (0, ["second", "third", "첫실험"]), shown.stderr
    assert "runs/첫실험: finished, 0 checkpoints" in shown.stderr
    (runs / "second" / "elsewhere").symlink_to(runs / "third")
    done = kovqa("runs", "rm", "첫실험", "runs/second", "-y", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["removed"] is True
    assert [run["folder"] for run in answer["runs"]] == ["runs/첫실험", "runs/second"]
    assert names(runs) == ["third"]
    assert (runs / "third" / "run.yaml").is_file()
    assert kovqa("runs", "rm", "third", "-y", "-q").stdout == "runs/third\n"


def test_nobody_is_asked_without_a_terminal(kovqa: Kovqa, runs: Path) -> None:
    done = kovqa("runs", "rm", "third")
    assert (done.returncode, done.stdout) == (2, "")
    assert all(text in done.stderr for text in ("there is no terminal", "look with -n, then say -y"))
    assert names(runs) == ["second", "third", "첫실험"]


def test_what_is_no_run_or_not_the_whole_of_one_stays(kovqa: Kovqa, runs: Path) -> None:
    (runs / "notes").mkdir()
    (runs / "link").symlink_to("third")
    (runs / "third" / "step-000006").mkdir()
    copy_run(runs / "third", runs / "second" / "inner")
    for name, problem in {
        "thirdd": "did you mean third?",
        "notes": "runs/notes is not a run folder: it has no run.yaml",
        "runs/third/step-000006": "is not a run folder",
        "link": "runs/link is a link to third",
        "second": "runs/second holds other runs, such as inner",
    }.items():
        done = kovqa("runs", "rm", "첫실험", name, "-y")
        assert done.returncode == 2, name
        assert problem in done.stderr
    assert kovqa("runs", "rm", ".", "-y", cwd=runs / "third").returncode == 2
    assert names(runs) == ["link", "notes", "second", "third", "첫실험"]


def test_a_run_in_which_somebody_works_stays(kovqa: Kovqa, runs: Path, tmp_path: Path) -> None:
    with (runs / "third" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = kovqa("runs", "rm", "third", "-y")
    assert (running.returncode, "runs/third is running" in running.stderr) == (2, True)
    step = runs / "second" / "step-000006" / "trainer"
    step.mkdir(parents=True)
    with (step / "optimizer.safetensors").open("w") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        read = kovqa("runs", "rm", "second", "-y")
    assert (read.returncode, "is being read" in read.stderr) == (2, True)
    write_slurm_job(runs / "첫실험", SlurmJob("7"))
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho '7|PENDING|Priority|kovqa'\n")
    squeue.chmod(0o755)
    queued = kovqa("runs", "rm", "첫실험", "-y", PATH=f"{squeue.parent}:/usr/bin:/bin")
    assert queued.returncode == 2
    assert "is job 7 of SLURM: PENDING (Priority)" in queued.stderr
    assert "end the job first: scancel 7" in queued.stderr
    assert names(runs) == ["second", "third", "첫실험"]


def test_killed_anywhere_a_run_is_whole_or_gone(forked_commands: ForkedCommands, runs: Path) -> None:
    """And nothing is left once the next one is removed."""
    words, folder = ("runs", "rm", "third", "-y"), runs.parent
    shutil.copytree(runs / "third", folder / "copy")
    files = {*names(runs / "third"), ".claim", ".lock"}
    operations = [
        line.split()[0] for line in forked_commands.run(words, folder, inside=str(folder)).operations
    ]
    rename = operations.index("os.rename") + 1
    for number in (rename - 1, rename, rename + 1, len(operations)):
        if not (runs / "third").exists():
            shutil.copytree(folder / "copy", runs / "third")
        forked_commands.run(words, folder, kill_at=number, inside=str(folder))
        left = {*names(runs / "third"), ".claim", ".lock"} if (runs / "third").exists() else set()
        assert left == (files if number <= rename else set())
    shutil.copytree(folder / "copy", runs / "third")
    assert forked_commands.run(words, folder, inside=str(folder)).code == 0
    assert names(runs) == ["second", "첫실험"]


def test_names_that_may_have_been_meant(kovqa: Kovqa, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    assert (
        "did you mean runs/third?"
        in kovqa("predict", "-i", "x.png", "--question", "뭐?", "--model", "thrid").stderr
    )
    assert "did you mean runs/third?" in kovqa("train", "--resume", "-o", "runs/thrid").stderr
    assert "did you mean third?" in kovqa("runs", "show", "runs/thrid").stderr
