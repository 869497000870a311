"""What `kovqa train` and `kovqa runs rerun` show: the plan, the command, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kovqa_cli.output.console import (
    format_duration,
    format_score,
    print_json,
    print_note,
    print_result,
    short_path,
)

if TYPE_CHECKING:
    from kovqa_core.plan.training import PlannedTraining
    from kovqa_core.settings.run import Run


def print_plan(planned: PlannedTraining, quiet: bool) -> None:
    """What is about to happen."""
    for line in planned.missing:
        print_note(f"warning: {line}")
    for found in planned.differs:
        print_note(
            f"warning: not as it was then: {found.section} {found.key} ({found.a} then, {found.b} now)"
        )
    if planned.fit.warning:
        print_note(f"warning: {planned.fit.warning}")
    if quiet:
        return
    run = planned.run
    recipe, profile = run.recipe, run.profile
    each = f"{profile.processes} × {run.micro_batch} × {run.accumulate}"
    length = f"{recipe.optim.epochs} epochs" if recipe.optim.epochs else f"{recipe.optim.steps} steps"
    print_note(f"recipe {recipe.name} ({recipe.family}, {recipe.task}) on profile {profile.name}, {length}")
    print_note(
        f"batch {recipe.optim.global_batch} = {each} (processes × micro-batch × accumulation), {profile.precision}"
    )
    print_note(_memory_line(planned))
    print_note(f"run folder {run.folder}" + (f", going on from {planned.resumed}" if planned.resumed else ""))


def _memory_line(planned: PlannedTraining) -> str:
    """What each device needs, part by part."""
    from kovqa_core.models.memory import BYTES_PER_GB

    needs = planned.fit.needs
    if needs is None:
        return f"memory: no estimate ({planned.fit.unknown})"
    each = "process" if planned.run.profile.device == "cpu" else "GPU"
    parts = ", ".join(
        f"{name} {value / BYTES_PER_GB:.2f}"
        for name, value in needs.parts.items()
        if value / BYTES_PER_GB >= 0.005
    )
    return f"memory: about {needs.peak / BYTES_PER_GB:.1f} GB per {each} at micro-batch {needs.micro_batch} ({parts})"


def _memory_values(planned: PlannedTraining) -> dict[str, Any] | None:
    needs = planned.fit.needs
    if needs is None:
        return None
    best, there = planned.fit.best, planned.fit.memory
    return {
        "micro_batch": needs.micro_batch,
        "bytes": round(needs.peak),
        "parts": {name: round(value) for name, value in needs.parts.items()},
        "device_bytes": None if there is None else round(there),
        "largest_micro_batch": None if best is None else best.micro_batch,
    }


def print_launch_command(planned: PlannedTraining, as_json: bool) -> None:
    """The launch command of a dry run."""
    launch = planned.launch
    if as_json:
        print_json(
            {
                "command": launch.shell_command(),
                "argv": launch.argv,
                "env": launch.env,
                "run": planned.run.model_dump(mode="json"),
                "from": dict(planned.origin),
                "missing": planned.missing,
                "script": launch.script,
                "differs": [asdict(found) for found in planned.differs],
                "memory": _memory_values(planned),
            }
        )
    else:
        print_result(launch.shell_command())


def print_submitted_job(run: Run, job: str, as_json: bool, quiet: bool) -> None:
    """A job in SLURM's queue: its number, and where to look."""
    if as_json:
        print_json({"job": job, "path": str(run.folder)})
        return
    if not quiet:
        print_note(
            f"job {job} is in SLURM's queue: squeue -j {job}; it writes {short_path(run.folder)}/logs/slurm-{job}.out"
        )
        print_note(
            f"stop it: scancel {job}; go on later: the same command with --resume -o {short_path(run.folder)}"
        )
    print_result(job)


def print_finished_run(run: Run, result: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    """Where the model is, how good it is, what to type next."""
    if as_json:
        print_json({"path": str(run.folder), **{k: v for k, v in result.items() if k != "schema"}})
        return
    if not quiet:
        best = result["best_score"]
        scored = (
            f"model {result['best']}"
            if best is None
            else f"{format_score(result['task'], best)} ({result['best']})"
        )
        print_note(
            f"finished in {format_duration(result['seconds'])}, {result['examples_per_second']:,} examples/s; {scored}"
        )
        words = "caption -i PICTURE" if result["task"] == "caption" else "predict -i PICTURE --question '…'"
        print_note(f"next: kovqa {words} --model {short_path(run.folder)}")
    print_result(short_path(run.folder))


def print_interrupted_run(run: Run) -> None:
    """What a stopped run left, and how it goes on."""
    from kovqa_core.runs.folder import follow_pointer

    last = follow_pointer(run.folder, "last")
    kept = f"{last.name} is complete" if last else "there is no checkpoint yet"
    print_note(f"stopped; {kept} → go on with: kovqa train --resume -o {short_path(run.folder)}")
