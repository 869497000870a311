"""kovqa index: raw data set -> index folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def index(
    source: Annotated[str, typer.Argument(help="Data set: aihub.", autocompletion=options.complete_source)],
    root: Annotated[Path, typer.Option("--root", help="Folder of the raw data.", envvar="KOVQA_ROOT")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Index folder. [default: data/SOURCE]")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the pictures.")] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            "--min-count",
            min=1,
            help="Times a training answer must occur to become a class. [default: 5, or 1 below 10,000 rows]",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read only; write nothing.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a raw data set into an index that training reads."""
    from kovqa_core.data.build import build_index

    from kovqa_cli import progress, show

    folder = output or Path("data") / source
    with progress.counter("rows read", quiet or json) as told:
        report = build_index(source, root, images, None if check else folder, min_count, told)
    show.index_report(report, folder, check, json, quiet)
