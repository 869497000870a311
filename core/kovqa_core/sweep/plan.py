"""`kovqa sweep` on paper: every run is planned, and what cannot work is refused, before the first one starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.metrics import metric_name
from kovqa_core.launch.machine_check import profile_of_this_machine
from kovqa_core.machine.detect_profile import load_profile_document
from kovqa_core.messages import Message, message
from kovqa_core.plan.training import PlannedTraining, plan_training
from kovqa_core.runs.slurm_job import SLURM_JOB_FILE
from kovqa_core.runs.summary import summarise_runs
from kovqa_core.settings.resolve import DEFAULT_RECIPE, FlagValue, load_document, override_documents
from kovqa_core.settings.run import RUN_FILE
from kovqa_core.sweep.grid import SweepGrid, SweepPoint, grid_points
from kovqa_core.sweep.sweep_file import grid_changes, read_sweep


@dataclass(frozen=True)
class SweepRequest:
    """What was typed of a sweep.

    Attributes:
        grid: what varies.
        folder: each run gets a folder in it.
        recipe, profile: names or paths; None: the default ones.
        sets: `a.b=c` texts for all runs.
        flags: explicit flags, as recipe keys.
        micro_batch: a number, "auto", or None: what the profile says.
        allow_left_out: train on though over 10 % of the rows are left out.
    """

    grid: SweepGrid
    folder: Path
    recipe: str | None = None
    profile: str | None = None
    sets: Sequence[str] = ()
    flags: Mapping[str, FlagValue] | None = None
    micro_batch: str | None = None
    allow_left_out: bool = False


@dataclass(frozen=True)
class PlannedPoint:
    """One run of a sweep, planned.

    Attributes:
        point: what it varies.
        planned: its training.
        plan_again: plans it anew, where its folder has changed since.
        in_queue: a job of SLURM is to train it, or does so: it is let be.
    """

    point: SweepPoint
    planned: PlannedTraining
    plan_again: Callable[[], PlannedTraining]
    in_queue: bool = False

    @property
    def is_open(self) -> bool:
        """Is it to be started?"""
        return self.planned.result is None and not self.in_queue

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.planned.run.folder


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that was checked on paper; nothing is written yet.

    Attributes:
        request: what was typed.
        points: its runs, in the order in which they train.
        metric: which compares them: a name in the table of metrics.
        notes: how its grid is another than that of the folder.
    """

    request: SweepRequest
    points: Sequence[PlannedPoint]
    metric: str
    notes: Sequence[Message]

    @property
    def is_queued(self) -> bool:
        """Do the runs become jobs of a queue?"""
        return self.points[0].planned.launch.queue is not None


def plan_sweep(request: SweepRequest, *, dry_run: bool) -> SweepPlan:
    """Plan every run of a sweep; nothing is written.

    Args:
        request: what was typed.
        dry_run: let pass what this machine lacks, and say so.

    Raises:
        KovqaError: whatever cannot work in one of the runs, before anything is started.
    """
    folder = request.folder
    if (folder / RUN_FILE).exists():
        raise SettingsError(
            message("sweep.folder-is-run", "{folder} is a run folder", folder=folder),
            message("sweep.folder-is-run.hint", "choose another -o: each run of a sweep gets a folder in it"),
        )
    stored = read_sweep(folder)
    _require_known_settings(request)
    points = grid_points(request.grid)
    in_queue = _names_in_queue(request, points)
    planned = [
        _plan_point(request, point, dry_run=dry_run, in_queue=point.name in in_queue) for point in points
    ]
    _require_one_start(planned)
    notes = list(grid_changes(stored, request.grid)) if stored else []
    return SweepPlan(request, planned, _shared_metric(planned), notes)


def _require_known_settings(request: SweepRequest) -> None:
    """See that each value of the grid is a setting, by the words that were typed.

    Raises:
        SettingsError: one is not; names the nearest.
    """
    recipe = load_document("recipes", request.recipe or DEFAULT_RECIPE)
    profile = load_profile_document(request.profile or profile_of_this_machine())
    for axis in request.grid.axes:
        for value in axis.values:
            typed = [f"{axis.key}={value}"]
            override_documents(
                recipe, profile, request.sets, request.flags or {}, os.environ, grid=typed
            )  # fmt: skip


def _names_in_queue(request: SweepRequest, points: Sequence[SweepPoint]) -> set[str]:
    """The runs that a job of SLURM is to train, or does."""
    folders = [request.folder / point.name for point in points]
    runs = summarise_runs([folder for folder in folders if (folder / SLURM_JOB_FILE).is_file()])
    return {run.folder.name for run in runs if run.job_state and run.state in ("queued", "running")}


def _plan_point(request: SweepRequest, point: SweepPoint, *, dry_run: bool, in_queue: bool) -> PlannedPoint:
    plan = partial(
        plan_training,
        request.recipe or DEFAULT_RECIPE,
        request.profile,
        sets=[*request.sets, *point.assignments],
        flags=request.flags or {},
        folder=request.folder / point.name,
        resume=True,
        dry_run=dry_run or in_queue,  # nothing of it is started here
        micro_batch=request.micro_batch,
        allow_left_out=request.allow_left_out,
    )
    return PlannedPoint(point, plan(), plan, in_queue)


def _require_one_start(points: Sequence[PlannedPoint]) -> None:
    """See that one command can start all runs, alike.

    Raises:
        SettingsError: nodes meet by a command that is typed on each; or jobs of one array would need other machines.
    """
    launches = [each.planned.launch for each in points]
    if any(launch.rendezvous for launch in launches):
        raise SettingsError(
            message(
                "sweep.needs-every-node",
                "with profile.rendezvous the same command is typed on every node, and a sweep is one command",
            ),
            message("sweep.needs-every-node.hint", "use a profile of one machine, or launcher: srun or sbatch"),
        )  # fmt: skip
    if len({(launch.queue is None, launch.batch_options) for launch in launches}) > 1:
        raise SettingsError(
            message(
                "sweep.unequal-jobs",
                "the runs of this grid are not started alike: some need other nodes or options of SLURM",
            ),
            message("sweep.unequal-jobs.hint", "type a sweep for each machine, with a folder of its own"),
        )  # fmt: skip


def _shared_metric(points: Sequence[PlannedPoint]) -> str:
    recipes = [each.planned.run.recipe for each in points]
    metrics = sorted({metric_name(recipe.eval.metric, recipe.task) for recipe in recipes})
    if len(metrics) > 1:
        raise SettingsError(
            message(
                "sweep.several-metrics",
                "the runs of this grid have several metrics: {names}",
                names=", ".join(metrics),
            ),
            message("sweep.several-metrics.hint", "compare runs by one: leave task and eval.metric out of the grid"),
        )  # fmt: skip
    return metrics[0]
