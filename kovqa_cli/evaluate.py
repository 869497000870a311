"""kovqa evaluate: scores of a predictions file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Predictions file (kovqa predict).")],
    index: Annotated[Path, typer.Option("--index", help="The index's .jsonl that was answered.")],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score predictions by kind of question, beside the answer that is most frequent."""
    from kovqa_core.results.scores import score_file

    from kovqa_cli import show

    show.scores(score_file(predictions, index), json, quiet)
