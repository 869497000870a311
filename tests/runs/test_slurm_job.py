"""The SLURM job of a run folder. squeue and sacct are scripts here; tests/slurm asks real ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.runs import slurm_job
from kovqa_core.runs.slurm_job import (
    SLURM_JOB_FILE,
    SlurmJob,
    query_job_states,
    read_slurm_job,
    require_not_queued,
    write_slurm_job,
)
from kovqa_core.runs.summary import all_runs, read_run_details
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import make_run, write_run

from kovqa_cli.output.next_commands import next_commands

Tool = Callable[[str, str], None]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Makes a command out of a shell line; there are no others of SLURM's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(slurm_job, "_QUERY_SECONDS", 1.0)

    def make(name: str, line: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)

    for name in ("squeue", "sacct"):
        make(name, "exit 1")
    return make


def new_run(folder: Path) -> Path:
    (folder / "logs").mkdir(parents=True)  # as queueing makes it
    write_run(make_run(load_recipe("tiny"), load_profile("cpu"), folder, []))
    return folder


def test_one_question_for_all_runs(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["기다림", "돈다", "끝남", "남의 것", "모름"]
    for number, name in enumerate(names, 11):
        write_slurm_job(new_run(tmp_path / "runs" / name), SlurmJob(str(number), f"kovqa-{name}"))
    new_run(tmp_path / "runs" / "작업 없음")
    tool(
        "squeue",
        f'echo "$@" >> {tmp_path}/asked; [ -z "$SQUEUE_USERS" ] || exit 1; printf "%s\\n" '
        "'11|PENDING|Resources|kovqa-기다림' '12|RUNNING|None|kovqa-돈다' '14|RUNNING|None|kovqa-another'",
    )
    tool("sacct", "echo '13|CANCELLED by 1000|None|kovqa-끝남'")
    going_on = tmp_path / "runs" / "돈다"
    (going_on / "step-000090").mkdir()
    (going_on / "last").write_text("step-000090\n")
    monkeypatch.setenv("SQUEUE_USERS", "somebody")  # a user's own filter
    runs = {run.folder.name: run for run in all_runs(tmp_path / "runs")}
    assert {name: (run.state, run.job, run.job_state) for name, run in runs.items()} == {
        "기다림": ("queued", "11", "PENDING (Resources)"),
        "돈다": ("running", "12", "RUNNING"),
        "끝남": ("planned", "13", "CANCELLED"),
        "남의 것": ("planned", "14", ""),  # a number of another cluster
        "모름": ("planned", "15", ""),
        "작업 없음": ("planned", "", ""),
    }
    assert runs["돈다"].steps == 90  # resumed, and no line of the log yet
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    assert next_commands(runs["기다림"], {}) == ["squeue -j 11"]
    assert read_run_details(tmp_path / "runs" / "기다림").summary.state == "queued"


@pytest.mark.parametrize("line", ["exit 1", "sleep 20", "printf '\\377|\\n||||\\n11\\n'", "kill -9 $$"])
def test_a_scheduler_that_does_not_answer_costs_seconds_and_no_traceback(tool: Tool, line: str) -> None:
    tool("squeue", f"exec {line}" if line.startswith("sleep") else line)
    began = time.monotonic()
    assert query_job_states([SlurmJob("11", "x"), SlurmJob("not a number")]) == {}
    assert time.monotonic() - began < 8


def test_no_scheduler_and_files_that_are_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert query_job_states([SlurmJob("11")]) == {}
    for text in ("", "{", "[]", "[1]", '{"number": 1}', "null"):
        (tmp_path / SLURM_JOB_FILE).write_text(text)
        assert read_slurm_job(tmp_path) is None
    write_slurm_job(tmp_path, SlurmJob("11", "kovqa-x"))
    require_not_queued(tmp_path, {})  # nobody to ask


def test_a_folder_is_queued_once(tool: Tool, tmp_path: Path) -> None:
    write_slurm_job(tmp_path, SlurmJob("11", "kovqa-x"))
    for state in ("PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED"):
        tool("squeue", f"echo '11|{state}|Priority|kovqa-x'")
        expected = rf"{tmp_path} is job 11 of SLURM already: {state} \(Priority\)"
        with pytest.raises(SettingsError, match=expected) as error:
            require_not_queued(tmp_path, {"SLURM_JOB_ID": "12"})
        assert "scancel 11" in error.value.hint
        require_not_queued(tmp_path, {"SLURM_JOB_ID": "11"})  # typed in that very job
    for state in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "COMPLETING"):
        tool("squeue", f"echo '11|{state}|None|kovqa-x'")
        require_not_queued(tmp_path, {})


def test_an_srun_that_waits_is_a_job_too(tool: Tool, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "launcher.log"
    log.parent.mkdir()
    log.write_text(
        "srun: job 20 queued and waiting for resources\nsrun: job 21 queued and waiting for resources\n"
    )
    assert read_slurm_job(tmp_path) == SlurmJob("21")
    tool("squeue", "echo '21|PENDING|Resources|python3'")
    with pytest.raises(SettingsError, match="is job 21 of SLURM already"):
        require_not_queued(tmp_path, {})
    write_slurm_job(tmp_path, SlurmJob("30", "kovqa-x"))
    os.utime(log, (1, 1))
    assert read_slurm_job(tmp_path) == SlurmJob("30", "kovqa-x")  # what was queued last
