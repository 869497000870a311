"""kovqa train: recipe × profile -> run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kovqa_cli import options

if TYPE_CHECKING:
    from kovqa_core.plan.training import PlannedTraining


def train(
    recipe: options.RecipeOption = "kobeit3",
    profile: options.ProfileOption = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Index folder (kovqa index).", envvar="KOVQA_DATA")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="SentencePiece model.", envvar="KOVQA_TOKENIZER")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. [default: runs/RECIPE-DATE]")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint of the run folder, if it has one."),
    ] = False,
    random_init: Annotated[
        bool,
        typer.Option(
            "--random-init",
            help="Fusion: begin with random encoders instead of published ones; reads no weights, knows nothing yet.",
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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Check, prepare run.yaml, print the command; start nothing."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="As --dry-run, but let nothing pass; SLURM is asked if it takes the job."
        ),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train a model: plan it on paper, show the plan, start it (or queue it with SLURM), watch over it."""
    from kovqa_core.plan import training as plan_training

    flags = {"data.index": data, "model.tokenizer": tokenizer}
    typed = {key: value for key, value in flags.items() if value is not None}
    all_sets = [*(sets or []), *(["model.random_init=true"] if random_init else [])]
    plan = plan_training.plan_training(
        recipe, profile, all_sets, typed, output, resume, dry_run and not check, micro_batch
    )
    carry_out(plan, dry_run, json, quiet, check)


def carry_out(plan: PlannedTraining, dry_run: bool, json: bool, quiet: bool, check: bool = False) -> None:
    """Show a planned training; start it (or queue it) and watch over it, unless only the plan was wanted."""
    from kovqa_core.launch.plan import test_only_plan
    from kovqa_core.launch.start import run_slurm_command, start_processes, submit_job
    from kovqa_core.plan import training as plan_training

    from kovqa_cli.output import console, progress
    from kovqa_cli.output import training as output_training

    if plan.finished is not None:
        output_training.print_finished_run(plan.run, plan.finished, json, quiet)
        return
    output_training.print_plan(plan, quiet or (json and not dry_run and not check))
    if check and (asked := test_only_plan(plan.launch)):
        console.print_note(run_slurm_command(asked))
    if dry_run or check:
        output_training.print_launch_command(plan, json)
        return
    if plan.launch.script is not None:
        output_training.print_submitted_job(plan.run, submit_job(plan.launch), json, quiet)
        return
    try:
        with progress.training_progress(quiet or json) as on_event:
            start_processes(plan.launch, on_event)
    except (KeyboardInterrupt, SystemExit):
        output_training.print_interrupted_run(plan.run)
        raise
    output_training.print_finished_run(plan.run, plan_training.finished_result(plan.run), json, quiet)
