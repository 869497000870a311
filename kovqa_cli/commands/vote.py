"""kovqa vote: several predictions files, one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


class VoteBy(StrEnum):
    """What decides."""

    ANSWER = "answer"
    PROBABILITY = "probability"


def vote(
    *,
    predictions: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Predictions files for the same questions.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Predictions file that is written.")
    ],
    by: Annotated[
        VoteBy,
        typer.Option(
            "--by",
            help="answer: that most files give; probability: the highest mean of what they list as likeliest.",
        ),
    ] = VoteBy.ANSWER,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Give each question the answer that most files give.

    Among equals the answer counts whose scores are highest in sum, then the first file's; an empty answer has no
    vote. By probability an answer that a file does not list counts as 0 there, and rows where that could have decided
    are counted. Order and further columns are those of the first file.
    """
    run_vote(predictions, output, by=by, as_json=json, quiet=quiet)


def run_vote(
    predictions: Sequence[Path], output: Path, *, by: VoteBy = VoteBy.ANSWER, as_json: bool, quiet: bool
) -> None:
    """Write and print what several predictions files vote for."""
    from kovqa_core.evaluate.ensemble import vote_on_files

    from kovqa_cli.output.answers import print_ensemble

    result = vote_on_files(predictions, output, by_probability=by is VoteBy.PROBABILITY)
    print_ensemble(output, predictions, result, as_json=as_json, quiet=quiet)
