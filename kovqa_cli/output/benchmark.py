"""What `kovqa benchmark` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import Message, message

from kovqa_cli.output.console import error_line, print_note, print_report, short_path
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.benchmark.set_indexes import SetIndex
    from kovqa_core.benchmark.table import BenchmarkTable, SetFailure, SetScore


def judged_note(index: SetIndex) -> Message:
    """That a set is left out, because nobody judges."""
    return message(
        "benchmark.judged-left-out",
        "{set} is left out: a judge scores its answers, and none is named (--judge URL)",
        set=index.benchmark.name,
    )


def print_result_line(result: SetScore | SetFailure, *, quiet: bool) -> None:
    """A pair as soon as it is done; a failure also where little is wanted."""
    from kovqa_core.benchmark.table import SetFailure

    if isinstance(result, SetFailure):
        problem = message(
            "benchmark.pair-failed", "{set}, {model}: {problem}",
            set=result.set, model=result.model, problem=result.error.message,
        )  # fmt: skip
        print_note(error_line(problem, result.error.hint))
    elif not quiet:
        kept = ""
        if result.kept:
            kept = message(
                "benchmark.kept-answers", "; {kept:,} answers were there already", kept=result.kept
            )
        print_note(
            message(
                "benchmark.result-line", "{set}, {model}: {score:.1%}{kept}",
                set=result.set, model=result.model, score=result.scores.total.score, kept=kept,
            )
        )  # fmt: skip


def print_benchmark(table: BenchmarkTable, output: Path, *, as_json: bool, quiet: bool) -> None:
    """The table on stdout, and below it what its numbers mean; the path of the table's file, or one JSON document."""
    from kovqa_core.benchmark.table import TABLE_FILE, result_notes, table_cells, table_headings

    def print_all() -> None:
        sides = ["left", "left", "right", "right", "right", "right", "left", "left"]
        versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
        print_table(
            list(zip(table_headings(), sides, strict=True)), [table_cells(result) for result in table.results], versions
        )  # fmt: skip
        for note in result_notes(table):
            print_note(note)
        print_note(message("benchmark.written", "predictions and table: {folder}", folder=short_path(output)))

    path = output / TABLE_FILE
    fields = {"path": str(path), **table.json_fields()}
    print_report(str(path), fields, print_all, as_json=as_json, quiet=quiet)
