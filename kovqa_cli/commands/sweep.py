"""kovqa sweep: one recipe with several settings and seeds -> run folders and one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kovqa_cli import options

if TYPE_CHECKING:
    from kovqa_core.sweep.plan import SweepPlan


def sweep(
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the sweep: a run folder for each run."),
    ],
    recipe: options.RecipeOption = None,
    profile: options.ProfileOption = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=VALUE,VALUE",
            help="A setting that varies: optim.lr=1e-5,3e-5. Repeatable: then every combination.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N|SEED,SEED",
            help="Seeds of each setting: 3 is 0, 1 and 2; 1,5,9 are themselves. [default: the recipe's own]",
        ),
    ] = None,
    data: options.IndexFolderOption = None,
    tokenizer: options.TokenizerOption = None,
    random_init: options.RandomInitOption = False,
    micro_batch: options.MicroBatchOption = None,
    sets: options.SetOption = None,
    allow_left_out: options.AllowLeftOutOption = False,
    trust_remote_code: options.TrustRemoteCode = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "-n", help="Check and print the plan of all runs; start and write nothing."
        ),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train with several settings and seeds; one table.

    One run after the other, or all as one job array with a profile whose launcher is sbatch. Typed again, the
    same command goes on with the runs that are not finished.
    """
    from kovqa_core.sweep.grid import parse_grid
    from kovqa_core.sweep.plan import SweepRequest, plan_sweep

    from kovqa_cli.output import sweep as output_sweep

    request = SweepRequest(
        grid=parse_grid(grid or [], seeds, sets or []),
        folder=output,
        recipe=recipe,
        profile=profile,
        sets=sets or [],
        flags=options.training_flags(data, tokenizer, random_init=random_init, trust_remote_code=trust_remote_code),
        micro_batch=micro_batch,
        allow_left_out=allow_left_out,
    )  # fmt: skip
    plan = plan_sweep(request, dry_run=dry_run)
    output_sweep.print_sweep_plan(plan, quiet=quiet or json)
    if dry_run:
        output_sweep.print_planned_points(plan, as_json=json, quiet=quiet)
    else:
        _run_sweep(plan, json=json, quiet=quiet)


def _run_sweep(plan: SweepPlan, *, json: bool, quiet: bool) -> None:
    from kovqa_core.sweep.run import failed_sweep_error, queue_points, sweep_folder, train_points
    from kovqa_core.sweep.table import sweep_rows

    from kovqa_cli.output import sweep as output_sweep

    with sweep_folder(plan):
        if plan.is_queued:
            queued = queue_points(plan)
            output_sweep.print_queued_sweep(plan, queued, sweep_rows(plan), as_json=json, quiet=quiet)
            return
        try:
            failed = train_points(plan, output_sweep.progress_of_points(plan, quiet=quiet or json))
        except (KeyboardInterrupt, SystemExit):
            output_sweep.print_interrupted_sweep(plan)
            raise
        output_sweep.print_sweep_table(plan, sweep_rows(plan, failed), as_json=json, quiet=quiet)
    if failed:
        raise failed_sweep_error(failed, len(plan.points))
