"""The runs of a sweep, one after the other on this machine; or all that are not done yet as one job array of SLURM."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from kovqa_core.errors import AssetError, DataError, KovqaError, ModelError, SettingsError, Stopped
from kovqa_core.files import make_folder, write_text
from kovqa_core.launch.launchers.sbatch import ARRAY_SCRIPT, array_script
from kovqa_core.launch.start import OnEvent, run_queue_command, start_processes
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.training import finished_result
from kovqa_core.runs.slurm_job import SlurmJob, write_slurm_job
from kovqa_core.sweep.plan import PlannedPoint, SweepPlan
from kovqa_core.sweep.sweep_file import write_sweep

# Of what all runs have in common: where the first one ends so, the others would, too.
_SHARED_CAUSES = (SettingsError, DataError, ModelError, AssetError)
OpenProgress = Callable[[PlannedPoint, int], AbstractContextManager[OnEvent]]


@dataclass(frozen=True)
class FailedPoint:
    """A run of a sweep that failed, and how."""

    name: str
    error: KovqaError


@contextlib.contextmanager
def sweep_folder(plan: SweepPlan) -> Iterator[None]:
    """Hold the folder of a sweep, with its grid written down.

    Raises:
        SettingsError: another sweep works in it; it cannot be written.
    """
    folder = plan.request.folder
    with output_lock(folder, wait_seconds=0):
        write_sweep(make_folder(folder), plan.request.grid)
        yield


def train_points(plan: SweepPlan, open_progress: OpenProgress) -> list[FailedPoint]:
    """Train what is not finished, one run after the other; one that fails does not keep the others from it.

    Args:
        plan: the sweep; its folder is held.
        open_progress: shows a run and its events, given its place among all (from 1).

    Returns:
        The runs that failed.

    Raises:
        KovqaError: the first run failed for a reason that all have in common; or it was asked to stop.
    """
    failed: list[FailedPoint] = []
    is_first = all(each.planned.result is None for each in plan.points)
    for number, each in enumerate(plan.points, 1):
        if not each.is_open:
            continue
        try:
            _train_point(each, number, open_progress)
        except Stopped:
            raise
        except KovqaError as error:
            if is_first and isinstance(error, _SHARED_CAUSES):
                raise
            failed.append(FailedPoint(each.point.name, error))
        is_first = False
    return failed


def _train_point(each: PlannedPoint, number: int, open_progress: OpenProgress) -> None:
    with claim_planned_run(each.planned, each.plan_again) as claimed:
        if claimed.result is not None:  # another command has finished it meanwhile
            return
        with open_progress(each, number) as on_event:
            start_processes(claimed.launch, on_event)
        finished_result(claimed.run)


def failed_sweep_error(failed: list[FailedPoint], runs: int) -> KovqaError:
    """The error with which a sweep ends in which runs failed: of the kind of the first."""
    first = failed[0]
    return type(first.error)(
        message(
            "sweep.failed",
            "{failed} of {runs} runs failed, the first {name}: {problem}",
            failed=len(failed),
            runs=runs,
            name=first.name,
            problem=first.error.message,
        ),
        message("sweep.failed.hint", "type the same command again: it tries them once more, and only them"),
    )


# -------------------------------------------------------------------------------------- queues


@dataclass(frozen=True)
class QueuedSweep:
    """The job array of a sweep, and the names of its runs; no job where nothing was left to queue."""

    job: str
    names: tuple[str, ...]


def queue_points(plan: SweepPlan) -> QueuedSweep:
    """Queue what is neither finished nor queued nor running, as one job array.

    Args:
        plan: the sweep; its folder is held.

    Raises:
        KovqaError: a run's folder cannot be taken, or the queue refuses the array.
    """
    waiting = [each for each in plan.points if each.is_open]
    folder = plan.request.folder.resolve()
    for each in waiting:
        with claim_planned_run(each.planned, each.plan_again):
            make_folder(each.folder / "logs")
    if not waiting:
        return QueuedSweep("", ())
    names = [each.point.name for each in waiting]
    launch = waiting[0].planned.launch
    script = folder / ARRAY_SCRIPT
    make_folder(folder / "logs")
    write_text(script, array_script(folder, names, launch.batch_options))
    job = run_queue_command(["sbatch", "--parsable", str(script)], launch).splitlines()[-1].split(";")[0]
    for number, each in enumerate(waiting):
        with contextlib.suppress(
            KovqaError, OSError
        ):  # it is queued, whether or not its number can be written
            write_slurm_job(each.folder, SlurmJob(f"{job}_{number}", f"kovqa-{folder.name}"))
    return QueuedSweep(job, tuple(names))
