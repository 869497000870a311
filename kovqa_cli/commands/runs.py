"""kovqa runs: lists trainings, shows one, compares two, draws them, repeats, verifies and removes them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import completion, group_options, options
from kovqa_cli.commands.train import TrustRunOption, start_training

runs_app = typer.Typer(help="List, show, compare and repeat trainings.", invoke_without_command=True)
RootOption = Annotated[Path, typer.Option("--root", help="Folder of run folders.", metavar="DIR")]
DEFAULT_ROOT = Path("runs")


@runs_app.callback()
def list_by_default(
    context: typer.Context,
    *,
    root: RootOption = DEFAULT_ROOT,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List, show, compare and repeat trainings; alone: list them, newest first."""
    if not group_options.pass_group_options(context):
        list_runs(root=root, json=json, quiet=quiet)


@runs_app.command("list")
def list_runs(
    *,
    root: RootOption = DEFAULT_ROOT,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List all runs, newest first."""
    from kovqa_core.runs.summary import all_runs

    from kovqa_cli.output import runs

    runs.print_runs(all_runs(root), root, as_json=json, quiet=quiet)


@runs_app.command("show")
def show_run(
    run: options.RunArgument,
    *,
    root: RootOption = DEFAULT_ROOT,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show one run: settings, scores, checkpoints, launches.

    Also prints the commands that usually come next.
    """
    from kovqa_core.runs.summary import find_run, read_run_details

    from kovqa_cli.output import runs

    runs.print_run_details(read_run_details(find_run(run, root)), as_json=json, quiet=quiet)


@runs_app.command("diff")
def diff_runs(
    a: options.RunArgument,
    b: options.RunArgument,
    *,
    root: RootOption = DEFAULT_ROOT,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show how two runs differ, and their scores side by side."""
    from kovqa_core.runs.compare import compare_runs
    from kovqa_core.runs.summary import find_run

    from kovqa_cli.output import runs

    folder_a, folder_b = find_run(a, root), find_run(b, root)
    runs.print_comparison(folder_a, folder_b, compare_runs(folder_a, folder_b), as_json=json, quiet=quiet)


@runs_app.command("page")
def write_page(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs: names below runs/, or paths.",
            autocompletion=completion.complete_run_name,
        ),
    ],
    *,
    root: RootOption = DEFAULT_ROOT,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write.", metavar="FILE")
    ] = Path("page.html"),
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write one HTML page: curves of runs over each other.

    Also which settings differ, and what was answered to the same validation pictures at each evaluation.
    """
    from kovqa_core.runs.run_page import write_run_page
    from kovqa_core.runs.summary import find_run

    from kovqa_cli.output import run_page
    from kovqa_cli.output.progress import show_progress

    folders = [find_run(run, root) for run in runs]
    with show_progress(quiet or json) as on_progress:
        written = write_run_page(folders, output, on_progress)
    run_page.print_written_page(written, as_json=json, quiet=quiet)


@runs_app.command("verify")
def verify_runs(
    runs: options.RunArguments = None,
    *,
    root: RootOption = DEFAULT_ROOT,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Check checkpoints by checksum, and log and pointers.

    Without a name: all runs below --root. Nothing is changed. Ends with 3 if anything is damaged.
    """
    from kovqa_core.runs.summary import all_runs, find_run
    from kovqa_core.runs.verify import require_verified, verify_run

    from kovqa_cli.output import verify
    from kovqa_cli.output.progress import show_progress

    named = [find_run(run, root) for run in runs or ()]
    folders = named or [summary.folder for summary in all_runs(root)]
    with show_progress(quiet or json) as on_progress:
        verified = [verify_run(folder, on_progress) for folder in folders]
    verify.print_verifications(verified, root, as_json=json, quiet=quiet)
    require_verified(verified)


@runs_app.command("rm")
def remove_runs(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs: names below runs/, or paths.",
            autocompletion=completion.complete_run_name,
        ),
    ],
    *,
    root: RootOption = DEFAULT_ROOT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be removed; remove nothing.")
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Remove runs with all their checkpoints, for good.

    Asks first. A run that is training, queued or being read stays, and then all others do, too.
    """
    from kovqa_core.runs.remove import plan_removal, remove_run

    from kovqa_cli.output import remove_runs as output

    removable = plan_removal(runs, root)
    is_wanted = not dry_run and (yes or output.confirm_removal(removable))
    for run in removable if is_wanted else ():
        remove_run(run)
    output.print_removed(removable, is_done=is_wanted, dry_run=dry_run, as_json=json, quiet=quiet)


@runs_app.command("rerun")
def rerun_training(
    run: options.RunArgument,
    *,
    root: RootOption = DEFAULT_ROOT,
    output: options.RunFolderOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if the index holds other data than before.")
    ] = False,
    trust_run: TrustRunOption = False,
    trust_remote_code: options.TrustRemoteCode = False,
    dry_run: options.DryRunOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train again with the settings of a run, in a new folder.

    Names what is not as it was: data, versions, code.
    """
    from kovqa_core.plan.rerun import plan_rerun
    from kovqa_core.runs.summary import find_run

    plan = partial(
        plan_rerun, find_run(run, root), output,
        force=force, dry_run=dry_run, trust_run=trust_run, trust_code=trust_remote_code,
    )  # fmt: skip
    start_training(plan, dry_run=dry_run, json=json, quiet=quiet)
