"""kovqa caption: a sentence about one picture, or about many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def caption(
    image: Annotated[Path | None, typer.Option("--image", "-i", help="Picture.")] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Many pictures: a folder, an index's .jsonl, or a CSV/JSONL with id and image.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder the table's picture paths start from.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Captions file (JSON lines), with --input.")
    ] = None,
    model: options.ModelOption = None,
    beams: Annotated[
        int | None,
        typer.Option("--beams", min=1, help="Captions followed at once; 1: greedy. [default: the model's]"),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures at once.")] = 16,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Say in a sentence what one picture shows, or every picture of a folder, a table or an index."""
    from kovqa_core.errors import SettingsError

    from kovqa_cli.output import console, progress

    if (image is None) == (input is None) or (input is None) != (output is None):
        raise SettingsError("give --image, or --input and --output", "kovqa caption -i x.png")
    from kovqa_core.answer import local as work

    if image is not None:
        found, used = work.caption_image(image, model, beams)
        console.print_answer(found, used, json, quiet, "caption")
        return
    assert input is not None and output is not None
    with progress.progress_bar("captioning", quiet or json) as told:
        rows, used = work.answer_table(input, images, output, model, batch, told, "caption", beams)
    console.print_predictions(output, rows, used, json, quiet, "captions")
