"""kovqa benchmark: models on published Korean sets, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.messages import message

from kovqa_cli import completion, decoding_options, options
from kovqa_cli.commands.evaluate import (
    JudgeModelOption,
    JudgeOption,
    JudgePromptOption,
    read_judge_options,
)
from kovqa_cli.commands.predict import refuse_with_server


def benchmark(
    *,
    sets: Annotated[
        str,
        typer.Option(
            "--sets",
            metavar="NAME,NAME",
            help="Published sets, with commas between them; all: those that are indexed in --data.",
            autocompletion=completion.complete_benchmark_sets,
        ),
    ],
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            metavar="DIR|OWNER/NAME",
            help="As for kovqa predict. Repeatable. [default: the newest finished run here]",
            autocompletion=completion.complete_model,
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of the sets' indexes: DIR/k-mmbench, …")
    ] = Path("data"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the predictions and the table.")
    ] = Path("benchmark"),
    profile: options.AnswerProfileOption = None,
    batch: options.QuestionBatchOption = None,
    precision: options.PrecisionOption = "auto",
    load: options.LoadOption = "auto",
    choices_by: decoding_options.ChoicesByOption = None,
    calibrate: decoding_options.CalibrateOption = False,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_prompt: JudgePromptOption = None,
    server: options.ServerOption = None,
    concurrency: options.ConcurrencyOption = 16,
    allow_left_out: options.AllowLeftOutOption = False,
    trust_remote_code: options.TrustRemoteCode = False,
    force: options.ForceAnswersOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Score models on published Korean sets, in one table.

    Questions with choices are answered by the likelihood of the choices; a server writes, and the set's protocol reads
    what it wrote. Run again, the same command goes on where it ended.
    """
    from kovqa_core.answer.job import AnswerOptions
    from kovqa_core.benchmark.run_benchmark import BenchmarkOptions, leave_out_judged, run_benchmark
    from kovqa_core.benchmark.set_indexes import ALL_SETS, SetIndex, find_set_indexes
    from kovqa_core.data.decoding import decoding_from_options
    from kovqa_core.models.load_form import require_load_form
    from kovqa_core.models.precision import require_precision

    from kovqa_cli.output import benchmark as shown
    from kovqa_cli.output.answers import print_cpu_warning
    from kovqa_cli.output.console import print_note
    from kovqa_cli.output.progress import show_progress

    # Each pair has a model and a decoding of its own.
    answering = AnswerOptions(
        precision=require_precision(precision),
        load=require_load_form(load),
        trust_remote_code=trust_remote_code,
    )
    if server:
        refuse_with_server(
            {
                "--profile": bool(profile),
                "--trust-remote-code": trust_remote_code,
                "--precision": precision != "auto",
                "--load": load != "auto",
                "--choices-by or --calibrate": calibrate or choices_by is not None,
            }
        )
    choices = decoding_from_options(
        None, choices=True, temperature=None, seed=None, choices_by=choices_by, calibrate=calibrate
    )
    judging = read_judge_options(judge, judge_model, judge_prompt)
    names = sets.split(",")
    chosen, judged = find_set_indexes(data, names), list[SetIndex]()
    if judging is None:
        chosen, judged = leave_out_judged(chosen)
    if not quiet:
        if ALL_SETS in names:
            here = ", ".join(each.benchmark.name for each in chosen)
            print_note(message("benchmark.sets-here", "sets in {folder}: {sets}", folder=data, sets=here))
        for each in judged:
            print_note(shown.judged_note(each))
    if not (server or profile):
        print_cpu_warning()
    benchmark_options = BenchmarkOptions(
        model or [None], answering, choices, profile, server, concurrency, batch, judging,
        allow_left_out=allow_left_out, force=force,
    )  # fmt: skip
    with show_progress(quiet or json) as on_progress:
        table = run_benchmark(
            benchmark_options,
            chosen,
            output,
            on_progress,
            lambda result: shown.print_result_line(result, quiet=quiet or json),
        )
    shown.print_benchmark(table, output, as_json=json, quiet=quiet)
    if table.failures:
        raise typer.Exit(table.failures[0].error.exit_code)
