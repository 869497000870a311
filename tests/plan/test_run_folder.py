"""Run folders: claimed before anything is written, by one command at a time; what would be lost is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from kovqa_core.distributed import run_lock
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.plan import claim
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.run_folder import require_own_files
from kovqa_core.runs.slurm_job import SlurmJob, write_slurm_job
from kovqa_core.runs.summary import all_runs, summarise_run
from kovqa_core.settings.run import RUN_FILE, read_run, write_run

from kovqa_cli.completion import complete_run, complete_run_name
from tests.conftest import SMALL
from tests.plan.conftest import Plan, leave_checkpoint


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the lock files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (run_lock.LOCK_FILE, run_lock.CLAIM_FILE)
    }


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_CLAIM_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(claim, "_EARLIER_RUN_SECONDS", 0.0)


# ------------------------------------------------------------------------- one at a time


def test_a_second_training_changes_nothing_under_the_first(
    plan: Plan, resume: Plan, stopped: Path, tmp_path: Path
) -> None:
    with claim_planned_run(resume(stopped), pytest.fail):
        before = files(stopped)
        second = resume(stopped, changes=["optim.lr=1e-6"], sets=["profile.threads=7"])
        held = pytest.raises(SettingsError, match=rf"process {os.getpid()} on ")
        with held as caught, claim_planned_run(second, pytest.fail):
            pytest.fail("both have it")
        assert str(stopped) in caught.value.message
        assert files(stopped) == before
    new = tmp_path / "new"
    first, second = plan(new), plan(new, sets=["optim.steps=3"])
    with claim_planned_run(first, pytest.fail):
        before = files(new)
        with pytest.raises(SettingsError, match="another"), claim_planned_run(second, pytest.fail):
            pytest.fail("both have it")
        assert files(new) == before


def test_two_commands_do_not_queue_one_folder(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both made their plans before one of them had a job."""
    squeue, folder = tmp_path / "squeue", tmp_path / "run"
    squeue.write_text("#!/bin/sh\necho '11|PENDING|Priority|kovqa-run'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    first, second = plan(folder), plan(folder)
    with claim_planned_run(first, pytest.fail):
        write_slurm_job(folder, SlurmJob("11", "kovqa-run"))
    before = files(folder)
    refused = pytest.raises(SettingsError, match="is job 11 of SLURM already: PENDING")
    with refused, claim_planned_run(second, lambda: plan(folder)):
        pytest.fail("both queue it")
    with refused:
        plan(folder, resume=True)
    assert not plan(folder, resume=True, dry_run=True).missing  # a plan may be looked at
    assert files(folder) == before


def test_images_that_a_nodes_setup_brings_are_not_looked_for_here(plan: Plan, tmp_path: Path) -> None:
    images = f"data.images={tmp_path / 'scratch'}"
    slurm = ["profile.launcher=srun", "profile.slurm.node_setup=[cp -r images scratch]"]
    sets = [*SMALL, "optim.steps=2", images]
    with pytest.raises(DataError, match="scratch, which is not there"):
        plan(tmp_path / "run", sets=sets)
    (note,) = plan(tmp_path / "run", sets=[*sets, *slurm], dry_run=True).missing[-1:]
    assert (
        note == f"images {tmp_path / 'scratch'} are not here: slurm.node_setup is to bring them to each node"
    )


def test_processes_that_train_keep_others_out(
    plan: Plan, resume: Plan, stopped: Path, tmp_path: Path
) -> None:
    """A job of a queue, or what a killed command left behind: the command that started it is gone."""
    planned, before = resume(stopped, sets=["profile.threads=7"]), files(stopped)
    lock = run_lock.acquire_run_lock(stopped, {})
    with pytest.raises(SettingsError, match="a run is training in"), claim_planned_run(planned, pytest.fail):
        pytest.fail("both have it")
    assert files(stopped) == before
    lock.close()
    with claim_planned_run(planned, pytest.fail):
        assert read_run(stopped / RUN_FILE).profile.threads == 7
    begun = tmp_path / "begun"
    with claim_planned_run(plan(begun), pytest.fail):
        pass
    lock = run_lock.acquire_run_lock(begun, {})
    with pytest.raises(SettingsError, match="a run is training in"):
        plan(begun)
    lock.close()
    assert plan(begun, sets=["optim.steps=3"])  # it never came to a checkpoint: it may begin again


def test_a_plan_that_is_overtaken_is_made_again(resume: Plan, stopped: Path) -> None:
    planned = resume(stopped)
    leave_checkpoint(stopped, 10)
    with claim_planned_run(planned, lambda: resume(stopped)) as claimed:
        assert claimed.resumed_step == "step-000010"


def test_two_trainings_of_one_second_have_a_folder_each(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "0101-000000")
    planned = [plan(None, sets=[f"optim.steps={steps}"]) for steps in (3, 4, 5)]
    assert len({each.run.folder for each in planned}) == 1
    for each, name in zip(planned, ("", "-2", "-3"), strict=True):
        with claim_planned_run(each, pytest.fail) as claimed:
            assert claimed.run.folder == tmp_path / f"runs/tiny-0101-000000{name}"
            assert str(claimed.run.folder / RUN_FILE) in claimed.launch.argv
            assert read_run(claimed.run.folder / RUN_FILE).recipe == each.run.recipe


def test_hosts_of_one_launch_share_the_folder(plan: Plan, resume: Plan, tmp_path: Path) -> None:
    profile = tmp_path / "two.yaml"
    profile.write_text("nodes: 2\nrendezvous: localhost:29533\nlauncher: torchrun\nprecision: fp32\n")
    folder = tmp_path / "shared"
    first, second = (plan(folder, profile=str(profile), resume=True) for _ in range(2))
    with claim_planned_run(first, pytest.fail):
        before = files(folder)
        with claim_planned_run(second, lambda: plan(folder, profile=str(profile), resume=True)) as joined:
            assert joined.launch == first.launch
        lock = run_lock.acquire_run_lock(folder, {})  # they have met, and train; a host comes back
        with claim_planned_run(resume(folder), pytest.fail):
            assert files(folder) == before
        other = resume(folder, sets=["profile.threads=9"])
        active = pytest.raises(SettingsError, match="a run is training in")
        with active, claim_planned_run(other, pytest.fail):
            pytest.fail("it would train something else")
        assert files(folder) == before
        lock.close()


# ------------------------------------------------------------------------------ dry runs


def test_a_plan_alone_is_nothing_to_be_offered(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What earlier versions left, and a command that was killed before anything began: `run.yaml` alone."""
    monkeypatch.chdir(tmp_path)
    named = Path("runs/named")
    run = plan(named, dry_run=True).run
    run.folder.mkdir(parents=True)
    write_run(run)
    assert summarise_run(named).state == "planned"
    assert (all_runs(), complete_run(""), complete_run_name("")) == ([], [], [])
    with pytest.raises(SettingsError, match="no unfinished run"):
        plan(None, recipe=None, resume=True)
    with claim_planned_run(plan(named), pytest.fail):
        (named / "logs").mkdir()  # as starting or queueing makes it
    assert [run.folder for run in all_runs()] == [named]
    assert complete_run_name("na") == ["named"]


# ------------------------------------------------------------------- what would be lost


def test_a_mistyped_folder_names_the_nearest(plan: Plan, resume: Plan, stopped: Path) -> None:
    for typed in (stopped.with_name("내 rum"), stopped / "logs", stopped.parent / "nowhere" / "x"):
        with pytest.raises(SettingsError, match="no run in ") as caught:
            resume(typed)
        assert not typed.exists()
    with pytest.raises(SettingsError, match=f"did you mean {stopped}"):
        resume(stopped.with_name("내 rum"), sets=["profile.threads=1"], profile="cpu")
    assert "-r RECIPE" in caught.value.hint
    begins = plan(stopped.with_name("새로"), resume=True)  # a recipe is named: the command for every night
    assert (begins.is_resume, begins.resumed_step) == (True, None)
    with pytest.raises(SettingsError, match="no run in "):
        plan(stopped.with_name("새로"), resume=True, changes=["optim.lr=1e-6"])


@pytest.mark.parametrize(
    "name", ["log.jsonl", "manifest.json", "last", "result.json", "index.json", "config.json"]
)
def test_a_folder_of_something_else_is_refused(plan: Plan, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(SettingsError, match="holds"):
        plan(tmp_path)
    assert files(tmp_path) == {name: b"{}"}


def test_a_log_of_the_shell_may_lie_in_a_new_folder(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text("nohup")
    with claim_planned_run(plan(tmp_path), pytest.fail):
        assert (tmp_path / RUN_FILE).is_file()


@pytest.mark.parametrize("mark", ["last", "result.json", "step-000004/kovqa.json"])
def test_a_run_that_learned_something_is_not_begun_again(plan: Plan, tmp_path: Path, mark: str) -> None:
    folder = tmp_path / "run"
    with claim_planned_run(plan(folder), pytest.fail):
        pass
    (folder / mark).parent.mkdir(exist_ok=True)
    (folder / mark).write_text("{}")
    with pytest.raises(SettingsError, match="already holds a run"):
        plan(folder)


@pytest.mark.parametrize(
    "name", ["last", "best", "run.yaml", "log.jsonl", "manifest.json", "logs/launcher.log"]
)
def test_nothing_is_written_through_a_link_in_a_run_folder(tmp_path: Path, name: str) -> None:
    """A run folder of somebody else may hold links to files of whoever goes on with it."""
    mine, folder = tmp_path / "mine", tmp_path / "run"
    mine.write_text("precious")
    (folder / "logs").mkdir(parents=True)
    (tmp_path / "shortcut").symlink_to(folder)
    require_own_files(tmp_path / "shortcut")
    (folder / name).symlink_to(mine)
    with pytest.raises(SettingsError, match=r"is a link to .*mine, which a training would write over"):
        require_own_files(folder)


def test_a_resume_writes_through_no_link(resume: Plan, stopped: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (stopped / "last").replace(mine)
    (stopped / "last").symlink_to(mine)
    planned, before = resume(stopped, sets=["profile.threads=7"]), files(stopped)
    with pytest.raises(SettingsError, match="last is a link"), claim_planned_run(planned, pytest.fail):
        pytest.fail("it would be written over")
    assert files(stopped) == before
