"""kovqa train: recipe × profile -> run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from kovqa_cli import options

if TYPE_CHECKING:
    from kovqa_core.plan.training import PlannedTraining


def train(
    *,
    recipe: options.RecipeOption = "kobeit3",
    profile: options.ProfileOption = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Index folder (kovqa index).", envvar="KOVQA_DATA"),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="FILE", help="SentencePiece model.", envvar="KOVQA_TOKENIZER"),
    ] = None,
    output: options.RunFolderOption = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint of the run folder, if it has one."),
    ] = False,
    random_init: Annotated[
        bool,
        typer.Option(
            "--random-init",
            help="Fusion: begin with random encoders instead of published ones; no weights are read.",
        ),
    ] = False,
    micro_batch: Annotated[
        str | None,
        typer.Option(
            "--micro-batch",
            metavar="N|auto",
            help="Examples one process holds at once; auto: as many as fit. The global batch stays as it is.",
        ),
    ] = None,
    sets: options.SetOption = None,
    dry_run: options.DryRunOption = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Like --dry-run, but everything must be here; looks into the workers' container, and asks SLURM whether "
            "it takes the job.",
        ),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train a model: check, show the plan, start, watch.

    Everything that can be checked on paper is checked before anything starts. With a profile whose launcher is
    sbatch, SLURM's queue gets a job; with any other, the command waits until training ends.
    """
    from kovqa_core.plan import training as plan_training

    flags = {"data.index": data, "model.tokenizer": tokenizer}
    planned = plan_training.plan_training(
        recipe,
        profile,
        sets=[*(sets or []), *(["model.random_init=true"] if random_init else [])],
        flags={key: value for key, value in flags.items() if value is not None},
        folder=output,
        resume=resume,
        dry_run=dry_run and not check,
        micro_batch=micro_batch,
    )
    start_training(planned, dry_run=dry_run, check=check, json=json, quiet=quiet)


def start_training(
    planned: PlannedTraining, *, dry_run: bool, json: bool, quiet: bool, check: bool = False
) -> None:
    """Show a planned training; start it (or queue it) and watch it, unless only the plan was wanted."""
    from kovqa_core.launch.look_inside import look_inside
    from kovqa_core.launch.start import ask_scheduler, start_processes, submit_job
    from kovqa_core.plan.training import finished_result

    from kovqa_cli.output import console
    from kovqa_cli.output import training as output_training

    run, launch = planned.run, planned.launch
    if planned.result is not None:
        output_training.print_finished_run(run, planned.result, as_json=json, quiet=quiet)
        return
    output_training.print_plan(planned, quiet=quiet or (json and not dry_run and not check))
    if dry_run and not check and launch.on_paper:
        console.print_note(launch.on_paper)
    if check:
        for answer in (look_inside(run, launch, os.environ), ask_scheduler(launch)):
            if answer:
                console.print_note(answer)
    if dry_run or check:
        output_training.print_launch_command(planned, as_json=json)
    elif launch.queue is not None:
        job = submit_job(launch)
        output_training.print_submitted_job(run, job, launch.queue, as_json=json, quiet=quiet)
    else:
        try:
            with output_training.training_progress(quiet=quiet or json) as on_event:
                start_processes(launch, on_event)
        except (KeyboardInterrupt, SystemExit):
            output_training.print_interrupted_run(run)
            raise
        output_training.print_finished_run(run, finished_result(run), as_json=json, quiet=quiet)
