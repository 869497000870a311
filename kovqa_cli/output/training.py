"""What `kovqa train` and `kovqa runs rerun` show: the plan, the command, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kovqa_cli.output.console import document, note, out, score, short, span

if TYPE_CHECKING:
    from kovqa_core.plan.training import Training
    from kovqa_core.settings.run import Run


def plan(planned: Training, quiet: bool) -> None:
    """What is about to happen."""
    for line in planned.missing:
        note(f"warning: {line}")
    for found in planned.differs:
        note(f"warning: not as it was then: {found.section} {found.key} ({found.a} then, {found.b} now)")
    if planned.fit.warning:
        note(f"warning: {planned.fit.warning}")
    if quiet:
        return
    run = planned.run
    recipe, profile = run.recipe, run.profile
    each = f"{profile.processes} × {run.micro_batch} × {run.accumulate}"
    length = f"{recipe.optim.epochs} epochs" if recipe.optim.epochs else f"{recipe.optim.steps} steps"
    note(f"recipe {recipe.name} ({recipe.family}, {recipe.task}) on profile {profile.name}, {length}")
    note(
        f"batch {recipe.optim.global_batch} = {each} (processes × micro-batch × accumulation), {profile.precision}"
    )
    note(_memory(planned))
    note(f"run folder {run.folder}" + (f", going on from {planned.resumed}" if planned.resumed else ""))


def _memory(planned: Training) -> str:
    """What each device needs, part by part."""
    from kovqa_core.models.memory import GB

    needs = planned.fit.needs
    if needs is None:
        return f"memory: no estimate ({planned.fit.unknown})"
    each = "process" if planned.run.profile.device == "cpu" else "GPU"
    parts = ", ".join(
        f"{name} {value / GB:.2f}" for name, value in needs.parts.items() if value / GB >= 0.005
    )
    return f"memory: about {needs.peak / GB:.1f} GB per {each} at micro-batch {needs.micro_batch} ({parts})"


def _memory_document(planned: Training) -> dict[str, Any] | None:
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


def command(planned: Training, as_json: bool) -> None:
    """The launch command of a dry run."""
    launch = planned.launch
    if as_json:
        document(
            {
                "command": launch.shell(),
                "argv": launch.argv,
                "env": launch.env,
                "run": planned.run.model_dump(mode="json"),
                "from": dict(planned.origin),
                "missing": planned.missing,
                "script": launch.script,
                "differs": [asdict(found) for found in planned.differs],
                "memory": _memory_document(planned),
            }
        )
    else:
        out(launch.shell())


def submitted(run: Run, job: str, as_json: bool, quiet: bool) -> None:
    """A job in SLURM's queue: its number, and where to look."""
    if as_json:
        document({"job": job, "path": str(run.folder)})
        return
    if not quiet:
        note(
            f"job {job} is in SLURM's queue: squeue -j {job}; it writes {short(run.folder)}/logs/slurm-{job}.out"
        )
        note(f"stop it: scancel {job}; go on later: the same command with --resume -o {short(run.folder)}")
    out(job)


def finished(run: Run, result: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    """Where the model is, how good it is, what to type next."""
    if as_json:
        document({"path": str(run.folder), **{k: v for k, v in result.items() if k != "schema"}})
        return
    if not quiet:
        best = result["best_score"]
        scored = (
            f"model {result['best']}" if best is None else f"{score(result['task'], best)} ({result['best']})"
        )
        note(f"finished in {span(result['seconds'])}, {result['examples_per_second']:,} examples/s; {scored}")
        words = "caption -i PICTURE" if result["task"] == "caption" else "predict -i PICTURE --question '…'"
        note(f"next: kovqa {words} --model {short(run.folder)}")
    out(short(run.folder))


def interrupted(run: Run) -> None:
    """What a stopped run left, and how it goes on."""
    from kovqa_core.runs.folder import pointed

    last = pointed(run.folder, "last")
    kept = f"{last.name} is complete" if last else "there is no checkpoint yet"
    note(f"stopped; {kept} → go on with: kovqa train --resume -o {short(run.folder)}")
