"""kovqa runs: what was trained here, what came of it, how two differ, and the same once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options

runs_app = typer.Typer(
    help="Trainings: list them, show one, compare two, do one again.", invoke_without_command=True
)
RootOption = Annotated[Path, typer.Option("--root", help="Folder of run folders.")]
DEFAULT_ROOT = Path("runs")


@runs_app.callback()
def list_by_default(
    context: typer.Context,
    root: RootOption = DEFAULT_ROOT,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List all runs, newest first."""
    if not options.pass_group_options(context):
        list_runs(root, json, quiet)


@runs_app.command("list")
def list_runs(
    root: RootOption = DEFAULT_ROOT, json: options.JsonOption = False, quiet: options.QuietOption = False
) -> None:
    """List all runs, newest first."""
    from kovqa_core.runs.summary import all_runs

    from kovqa_cli.output import runs

    runs.print_runs(all_runs(root), root, json, quiet)


@runs_app.command("show")
def show_run(
    run: options.RunArgument, json: options.JsonOption = False, quiet: options.QuietOption = False
) -> None:
    """All about one run: settings, scores, checkpoints, launches, and what to type next."""
    from kovqa_core.runs.summary import find_run, read_run_details

    from kovqa_cli.output import runs

    runs.print_run_details(read_run_details(find_run(run)), json, quiet)


@runs_app.command("diff")
def diff_runs(
    a: options.RunArgument,
    b: options.RunArgument,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """What differs between two runs, and their scores side by side."""
    from kovqa_core.runs.compare import compare_runs
    from kovqa_core.runs.summary import find_run

    from kovqa_cli.output import runs

    one, other = find_run(a), find_run(b)
    runs.print_comparison(one, other, compare_runs(one, other), json, quiet)


@runs_app.command("rerun")
def rerun_training(
    run: options.RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. [default: runs/RECIPE-DATE]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the index holds other data than then.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Check, prepare run.yaml, print the command; start nothing."),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train again with the settings of a run, in a new folder; what is not as it was then is named."""
    from kovqa_core.plan import training
    from kovqa_core.runs.summary import find_run

    from kovqa_cli.commands.train import start_training

    planned = training.plan_rerun(find_run(run), output, force=force, dry_run=dry_run)
    start_training(planned, dry_run=dry_run, json=json, quiet=quiet)
