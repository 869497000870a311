"""kovqa evaluate: scores of a predictions file, and a page to look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Predictions file (kovqa predict, kovqa caption).")],
    index: Annotated[Path, typer.Option("--index", help="The index's .jsonl that was answered.")],
    kind: options.KindOption = None,
    normalise: Annotated[
        str,
        typer.Option(
            "--normalise", help="Answers are the same in this form: plain, korean, korean-particles, vqav2."
        ),
    ] = "plain",
    tokens: Annotated[
        str, typer.Option("--tokens", help="Captions are cut into: auto, english, korean, words.")
    ] = "auto",
    report: Annotated[
        Path | None, typer.Option("--report", help="Write one HTML page with tables and examples.")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Write answers beside the true ones, a line each, with (O) or (X)."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="The pictures' folder. [default: as the index says]")
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Right ones, and as many wrong ones, on the page.")
    ] = 60,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Score answers by kind of question, or captions, beside the answer that is most frequent."""
    from kovqa_core.evaluate.evaluation import evaluate_file

    from kovqa_cli.output import console, progress

    with progress.progress_bar("scoring", quiet) as told:
        found = evaluate_file(predictions, index, normalise, tokens, told, kind or ())
    if report:
        from kovqa_core.evaluate.report import write_report

        with progress.progress_bar("pictures", quiet) as told:
            write_report(found, report, images, examples, told)
        if not quiet:
            console.print_note(f"report: {console.short_path(report)}")
    if log:
        from kovqa_core.evaluate.answer_log import write_answer_log

        with progress.progress_bar("log", quiet) as told:
            write_answer_log(found, log, told)
        if not quiet:
            console.print_note(f"log: {console.short_path(log)}")
    console.print_evaluation(found, json, quiet)
