"""What `kovqa sweep` shows: the plan of all runs, each run's progress, and the table."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kovqa_core.messages import Message, join_messages, message

from kovqa_cli.output.console import (
    format_duration,
    print_note,
    print_outcome,
    print_report,
    shell_path,
    short_path,
)
from kovqa_cli.output.run_words import state_word
from kovqa_cli.output.table import print_table
from kovqa_cli.output.training import print_plan, training_progress

if TYPE_CHECKING:
    from kovqa_core.launch.start import OnEvent
    from kovqa_core.sweep.plan import PlannedPoint, SweepPlan
    from kovqa_core.sweep.run import OpenProgress, QueuedSweep
    from kovqa_core.sweep.table import SweepRow


# ---------------------------------------------------------------------------------------- plan


def print_sweep_plan(plan: SweepPlan, *, quiet: bool) -> None:
    """What is about to happen: how many runs, and what the first that is not finished is like."""
    for note in plan.notes:
        print_note(note)
    open_points = [each for each in plan.points if each.is_open]
    if open_points:
        print_plan(open_points[0].planned, quiet=quiet)
    if quiet:
        return
    settings = len({tuple(each.point.values.values()) for each in plan.points})
    print_note(
        message(
            "sweep.plan",
            "sweep {folder}: {runs} runs ({settings} settings × {seeds} seeds), {finished} of them finished; {how}",
            folder=short_path(plan.request.folder),
            runs=len(plan.points),
            settings=settings,
            seeds=len(plan.points) // settings,
            finished=sum(each.planned.result is not None for each in plan.points),
            how=_way_text(plan),
        )
    )

    times = [each.planned.length.seconds for each in open_points]
    known = [seconds for seconds in times if seconds is not None]
    if len(open_points) > 1 and len(known) == len(times):
        print_note(
            message(
                "sweep.time",
                "time: about {time} for the {runs} runs together, by the same figure",
                time=format_duration(sum(known)),
                runs=len(known),
            )
        )


def _way_text(plan: SweepPlan) -> Message:
    if plan.is_queued:
        return message("sweep.as-array", "one job array of SLURM")
    return message("sweep.one-after-the-other", "one after the other")


def print_planned_points(plan: SweepPlan, *, as_json: bool, quiet: bool) -> None:
    """The runs that a sweep would train; `quiet`: their folders."""
    from kovqa_core.sweep.grid import axis_names

    names = axis_names(plan.request.grid)
    print_report(
        [short_path(each.folder) for each in plan.points],
        {"path": str(plan.request.folder), "metric": plan.metric, "runs": list(map(_point_fields, plan.points)),
         "notes": list(plan.notes)},
        lambda: print_table(
            [
                (message("sweep.run-column", "run"), "left"),
                *((name, "left", 2) for name in names),
                (message("sweep.seed-column", "seed"), "right", 1),
                (message("sweep.plan-column", "state"), "text"),
            ],
            [
                [each.point.name, *each.point.values.values(), str(each.planned.run.recipe.seed), _plan_text(each)]
                for each in plan.points
            ],
        ),
        as_json=as_json,
        quiet=quiet,
    )  # fmt: skip


def _plan_text(each: PlannedPoint) -> Message:
    if each.planned.result is not None:
        return message("sweep.point-finished", "finished")
    if each.in_queue:
        return message("sweep.point-in-queue", "a job of SLURM has it")
    if each.planned.resumed_step:
        return message("sweep.point-goes-on", "goes on from {step}", step=each.planned.resumed_step)
    return message("sweep.point-begins", "begins")


def _point_fields(each: PlannedPoint) -> dict[str, Any]:
    planned = each.planned
    return {
        "name": each.point.name,
        "folder": str(each.folder),
        "values": dict(each.point.values),
        "seed": planned.run.recipe.seed,
        "finished": planned.result is not None,
        "resumed_step": planned.resumed_step,
        "command": planned.launch.shell_command(),
        "missing": list(planned.missing),
        "warnings": list(planned.warnings),
    }


# ------------------------------------------------------------------------------------ progress


def progress_of_points(plan: SweepPlan, *, quiet: bool) -> OpenProgress:
    """Shows each run of a sweep with a line before its progress."""

    @contextlib.contextmanager
    def open_progress(each: PlannedPoint, number: int) -> Iterator[OnEvent]:
        if not quiet:
            print_note(
                message(
                    "sweep.run-begins",
                    "run {number} of {runs}: {name}",
                    number=number,
                    runs=len(plan.points),
                    name=each.point.name,
                )
            )
        with training_progress(quiet=quiet) as on_event:
            yield on_event

    return open_progress


def print_interrupted_sweep(plan: SweepPlan) -> None:
    """How a stopped sweep goes on."""
    print_note(
        message(
            "sweep.stopped",
            "stopped; the same command goes on with the runs in {folder} that are not finished",
            folder=shell_path(plan.request.folder),
        )
    )


# --------------------------------------------------------------------------------------- table


def print_queued_sweep(
    plan: SweepPlan, queued: QueuedSweep, rows: Sequence[SweepRow], *, as_json: bool, quiet: bool
) -> None:
    """The number of a job array, or the table where nothing was left to queue."""
    folder = shell_path(plan.request.folder)
    if not queued.job:
        print_sweep_table(plan, rows, as_json=as_json, quiet=quiet)
        return
    notes = [
        message(
            "sweep.queued",
            "job array {job} is in the queue of SLURM with {runs} runs: squeue -j {job}; stop it: scancel {job}",
            job=queued.job,
            runs=len(queued.names),
        ),
        message(
            "sweep.queued-next",
            "the same command shows the table, and queues again what has not finished; each run: kovqa runs --root {folder}",
            folder=folder,
        ),
    ]
    fields = {"job": queued.job, "queued": list(queued.names), **_table_fields(plan, rows)}
    print_outcome(queued.job, fields, notes, as_json=as_json, quiet=quiet)


def print_sweep_table(plan: SweepPlan, rows: Sequence[SweepRow], *, as_json: bool, quiet: bool) -> None:
    """The settings of a sweep, the best first; `quiet`: the run folder of the best one."""
    from kovqa_core.sweep.table import best_run

    best = best_run(plan, rows)
    print_report(
        short_path(best.folder) if best else [],
        _table_fields(plan, rows),
        lambda: _print_rows(plan, rows),
        as_json=as_json,
        quiet=quiet,
    )


def _table_fields(plan: SweepPlan, rows: Sequence[SweepRow]) -> dict[str, Any]:
    from kovqa_core.sweep.table import best_run

    best = best_run(plan, rows)
    settings = [
        {
            **asdict(row),
            "scores": row.scores,
            "runs": [{**asdict(run), "folder": str(run.folder)} for run in row.runs],
        }
        for row in rows
    ]
    return {
        "path": str(plan.request.folder),
        "metric": plan.metric,
        "settings": settings,
        "best": str(best.folder) if best else None,
        "notes": list(plan.notes),
    }


def _print_rows(plan: SweepPlan, rows: Sequence[SweepRow]) -> None:
    from kovqa_core.evaluate.metrics import METRICS
    from kovqa_core.sweep.grid import axis_names
    from kovqa_core.sweep.table import best_run

    number = METRICS[plan.metric].number

    def cell(value: float | None) -> str:
        return "-" if value is None else format(value, number)

    print_table(
        [
            *((name, "left") for name in axis_names(plan.request.grid)),
            (METRICS[plan.metric].label, "right"),
            (message("sweep.spread-column", "spread"), "right"),
            (message("sweep.state-column", "runs"), "text"),
        ],
        [[*row.values.values(), cell(row.mean), cell(row.spread), _states_text(row)] for row in rows],
    )
    best = best_run(plan, rows)
    if best is not None:
        print_note(message("sweep.best", "best: {folder}", folder=short_path(best.folder)))
    print_note(
        message(
            "sweep.look-at-runs",
            "spread: sample standard deviation over seeds; each run: kovqa runs --root {folder}",
            folder=shell_path(plan.request.folder),
        )
    )


_STATES = ("new", "planned", "queued", "running", "stopped", "failed", "broken", "finished")


def _states_text(row: SweepRow) -> Message:
    """How many runs of a setting are finished, failed and so on, and why the first one failed."""
    counts = Counter(run.state for run in row.runs)
    states = join_messages(
        ", ",
        (
            message("sweep.runs-in-state", "{count} {state}", count=counts[name], state=state_word(name))
            for name in _STATES
            if counts[name]
        ),
    )
    failed = next((run for run in row.runs if run.error), None)
    if failed is None:
        return states
    return message("sweep.runs-with-error", "{states}: {error}", states=states, error=failed.error)
