"""kovqa train: recipe × profile -> run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kovqa_cli import options

if TYPE_CHECKING:
    from kovqa_core.plan.training import PlannedTraining

TrustRunOption = Annotated[
    bool,
    typer.Option(
        "--trust-run",
        help="Run what somebody else's run.yaml says: its setup lines, command prefix, python, variables.",
    ),
]


def train(
    *,
    recipe: options.RecipeOption = None,
    profile: options.ProfileOption = None,
    data: options.IndexFolderOption = None,
    tokenizer: options.TokenizerOption = None,
    output: options.RunFolderOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the last checkpoint of the run folder; with --recipe: begin, if nothing is there.",
        ),
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--change",
            metavar="KEY=VALUE",
            help="With --resume: change learning rate, clipping or length from here on: optim.lr=1e-5. Repeatable.",
        ),
    ] = None,
    random_init: options.RandomInitOption = False,
    micro_batch: options.MicroBatchOption = None,
    sets: options.SetOption = None,
    allow_left_out: options.AllowLeftOutOption = False,
    trust_run: TrustRunOption = False,
    trust_remote_code: options.TrustRemoteCode = False,
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
    from kovqa_core.errors import SettingsError
    from kovqa_core.messages import message
    from kovqa_core.plan import training as plan_training

    if changes and not resume:
        raise SettingsError(
            message("train.change-without-resume", "--change is for a run that goes on"),
            message("train.change-without-resume.hint", "add --resume, or use --set for a new run"),
        )
    if trust_run and not resume:
        raise SettingsError(
            message(
                "train.trust-without-resume", "--trust-run is for a run that goes on: a new one is yours"
            ),
            message("train.trust-without-resume.hint", "add --resume, or leave it out"),
        )
    plan = partial(
        plan_training.plan_training,
        recipe,
        profile,
        sets=sets or [],
        flags=options.training_flags(
            data, tokenizer, random_init=random_init, trust_remote_code=trust_remote_code
        ),
        folder=output,
        resume=resume,
        dry_run=dry_run and not check,
        micro_batch=micro_batch,
        changes=changes or [],
        allow_left_out=allow_left_out,
        trust_run=trust_run,
    )
    start_training(plan, dry_run=dry_run, check=check, json=json, quiet=quiet)


def start_training(
    plan: Callable[[], PlannedTraining], *, dry_run: bool, json: bool, quiet: bool, check: bool = False
) -> None:
    """Plan a training and show the plan; start it (or queue it) and watch it, unless only the plan was wanted."""
    from kovqa_core.plan.claim import claim_planned_run

    from kovqa_cli.output import training as output_training

    planned = plan()
    if planned.result is not None:
        output_training.print_finished_run(planned.run, planned.result, as_json=json, quiet=quiet)
    elif dry_run or check:
        _show_plan(planned, check=check, json=json, quiet=quiet)
    else:
        with claim_planned_run(planned, plan) as claimed:
            _run_training(claimed, json=json, quiet=quiet)


def _show_plan(planned: PlannedTraining, *, check: bool, json: bool, quiet: bool) -> None:
    from kovqa_core.launch.look_inside import look_inside
    from kovqa_core.launch.start import ask_scheduler

    from kovqa_cli.output import console
    from kovqa_cli.output import training as output_training

    output_training.print_plan(planned, quiet=quiet)
    launch = planned.launch
    if not check and launch.on_paper:
        console.print_note(launch.on_paper)
    if check:
        for answer in (look_inside(planned.run, launch, os.environ), ask_scheduler(launch)):
            if answer:
                console.print_note(answer)
    output_training.print_launch_command(planned, as_json=json, quiet=quiet)


def _run_training(planned: PlannedTraining, *, json: bool, quiet: bool) -> None:
    from kovqa_core.launch.start import start_processes, submit_job
    from kovqa_core.plan.training import finished_result

    from kovqa_cli.output import training as output_training

    run, launch = planned.run, planned.launch
    if planned.result is not None:  # another command has finished it meanwhile
        output_training.print_finished_run(run, planned.result, as_json=json, quiet=quiet)
        return
    output_training.print_plan(planned, quiet=quiet or json)
    if launch.queue is not None:
        job = submit_job(launch)
        output_training.print_submitted_job(run, job, launch.queue, as_json=json, quiet=quiet)
        return
    try:
        with output_training.training_progress(quiet=quiet or json) as on_event:
            start_processes(launch, on_event)
    except (KeyboardInterrupt, SystemExit):
        output_training.print_interrupted_run(run)
        raise
    output_training.print_finished_run(run, finished_result(run), as_json=json, quiet=quiet)
