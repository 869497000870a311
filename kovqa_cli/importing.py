"""kovqa import: a checkpoint of an original -> a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of VQA_NIA (infer_model_….pt).")],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", help="The data_ko.csv it was trained with, or a list of its answers in order."
        ),
    ],
    tokenizer: Annotated[
        str,
        typer.Option("--tokenizer", help="Its tokenizer: file, folder or asset.", envvar="KOVQA_TOKENIZER"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that the weights do not tell.", metavar="model.KEY=VALUE"),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a model of a checkpoint of VQA_NIA; nothing in the file is run."""
    from kovqa_core.models.fusion.importing import import_original

    from kovqa_cli import progress, show_models

    with progress.stages(quiet or json) as told:
        if told:
            told("importing", 0, 0.0)
        found = import_original(checkpoint, labels, tokenizer, output, sets or ())
    show_models.imported(output, found, json, quiet)
