"""kovqa predict: one question, or a whole table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def predict(
    image: Annotated[Path | None, typer.Option("--image", "-i", help="Picture.")] = None,
    question: Annotated[str | None, typer.Option("--question", help="Question about the picture.")] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Many questions: an index's .jsonl, or a CSV/JSONL with id, image, question."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder the table's picture paths start from.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Predictions file (JSON lines), with --input.")
    ] = None,
    model: options.Model = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Questions answered at once.")] = 32,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer one question about one picture, or every row of a table."""
    from kovqa_core.errors import SettingsError

    from kovqa_cli import progress, show

    one, many = image is not None and question is not None, input is not None and output is not None
    if one == many:
        raise SettingsError(
            "give --image and --question, or --input and --output",
            "kovqa predict -i x.png --question '무엇인가요?'",
        )
    from kovqa_core import predict as work

    if one:
        assert image is not None and question is not None
        answer, used = work.answer_one(image, question, model)
        show.answer(answer, used, json, quiet)
        return
    assert input is not None and output is not None
    with progress.bar("answering", quiet or json) as told:
        rows, used = work.answer_table(input, images, output, model, batch, told)
    show.predictions(output, rows, used, json, quiet)
