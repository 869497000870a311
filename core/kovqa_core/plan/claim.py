"""A planned training takes its folder: from here on files are written, and nobody else may."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kovqa_core.distributed.run_lock import claim_run_folder
from kovqa_core.files import disk_errors, make_folder, write_text
from kovqa_core.launch.launchers.protocol import JOB_SCRIPT
from kovqa_core.launch.plan import plan_launch
from kovqa_core.plan.run_folder import folder_state, require_own_files, run_active_error
from kovqa_core.plan.training import PlannedTraining
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.runs.consent import code_settings, new_run_id, remember_run
from kovqa_core.runs.folder import RESULT_FILE, is_run_active
from kovqa_core.runs.slurm_job import require_not_queued
from kovqa_core.settings.run import RUN_FILE, read_run, write_run

_EARLIER_RUN_SECONDS = 20.0  # processes that a killed command left behind have so long to end


@contextlib.contextmanager
def claim_planned_run(
    planned: PlannedTraining, plan_again: Callable[[], PlannedTraining]
) -> Iterator[PlannedTraining]:
    """Hold the folder of a planned training while its processes run, with its `run.yaml` written.

    Args:
        planned: the training.
        plan_again: plans it anew, where its folder has changed since.

    Returns:
        The training to start, in its own folder; one with a `result` has nothing left to do.

    Raises:
        SettingsError: another command, or processes of a run, work in the folder, or a job is queued for it; it
            cannot be written.
    """
    if planned.is_new_folder:
        planned = _in_folder(planned, _make_new_folder(planned.run.folder))
    folder = make_folder(planned.run.folder)
    # A new run does not wait for another to end: the folder would be in use then, too.
    is_joint = bool(planned.launch.rendezvous)
    with claim_run_folder(folder, joint=is_joint, wait=planned.is_resume or is_joint):
        require_not_queued(folder, os.environ)  # by another command, since this one made its plan
        if folder_state(folder) != planned.state:
            planned = plan_again()
        if planned.result is None:
            if is_joint and is_run_active(folder):
                _require_same_run(planned)  # which this command joins
            else:
                _wait_for_processes(folder)
                _write_run_files(planned)
        yield planned


def _make_new_folder(path: Path) -> Path:
    """Make a folder that was not there before: of two commands of one second each gets its own."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with disk_errors(path), contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError  # itertools.count has no end


def _in_folder(planned: PlannedTraining, folder: Path) -> PlannedTraining:
    if folder == planned.run.folder:
        return planned
    run = planned.run.model_copy(update={"folder": folder})
    return replace(
        planned,
        run=run,
        launch=plan_launch(
            run, sys.executable, usable_cpu_count(), environ=os.environ, trust_code=planned.trust_code
        ),
    )


def _wait_for_processes(folder: Path) -> None:
    """Processes that outlived their command, or a job of a queue, may still train here.

    Raises:
        SettingsError: they do not end.
    """
    began = time.monotonic()
    while is_run_active(folder):
        if time.monotonic() - began > _EARLIER_RUN_SECONDS:
            raise run_active_error(folder)
        time.sleep(0.2)


def _require_same_run(planned: PlannedTraining) -> None:
    """See that a host that comes later, or comes back, starts what the others are training.

    Raises:
        SettingsError: it would be something else.
    """
    run = planned.run
    stored = read_run(run.folder / RUN_FILE)
    if stored.model_copy(update={"argv": run.argv, "origin": run.origin, "id": run.id}) != run:
        raise run_active_error(run.folder)
    remember_run(stored)  # the home folder here may be another than where the run was begun


def _write_run_files(planned: PlannedTraining) -> None:
    run = planned.run
    require_own_files(run.folder)
    if planned.changes:
        # First: killed between the two, the run is finished again by its old settings, and not by the new ones.
        (run.folder / RESULT_FILE).unlink(missing_ok=True)
    if code_settings(run.profile) and not planned.foreign:  # to which nobody has agreed yet
        run = run if run.id else run.model_copy(update={"id": new_run_id()})
        remember_run(run)
        if planned.trusted_run is not None:
            remember_run(planned.trusted_run)
    write_run(run)
    if planned.launch.script is not None:
        write_text(run.folder / JOB_SCRIPT, planned.launch.script)
