"""kovqa demo: the whole journey on drawn Korean scenes, offline, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.messages import join_messages, message

from kovqa_cli import options


def demo(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything.", metavar="DIR")
    ] = Path("demo"),
    images: Annotated[
        int, typer.Option("--pictures", min=64, help="Number of images to learn from.", metavar="N")
    ] = 5000,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Only draw images and write a table of questions about them, to try commands on; train nothing.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawings.", metavar="N")] = 7,
    sets: options.SetOption = None,
) -> None:
    """Try everything on drawn Korean scenes, offline.

    Draws the scenes, trains a tokenizer and a small BEiT-3 on them, answers held-out questions.
    """
    from kovqa_core.demo import journey

    from kovqa_cli.output.console import print_note, print_result, shell_path, short_path
    from kovqa_cli.output.progress import show_progress

    if table:
        with show_progress() as on_progress:
            tables = journey.draw_demo_table(output, images, seed, on_progress)
        print_note(
            message(
                "demo.table-next",
                "next: kovqa index table --root {table} -o {index}",
                table=shell_path(tables[0]),
                index=shell_path(output / "index"),
            )
        )
        print_result(*map(short_path, tables))
        return
    with show_progress() as on_progress:
        journey.draw_demo_data(output, images, seed, on_progress)
    for step in journey.demo_steps(output, sets or []):
        print_note("", join_messages("", ["# ", step.title]), f"$ {journey.shell_line(step.arguments)}")
        journey.run_command(step.arguments)
    sheet = journey.write_contact_sheet(output)
    title = message("demo.contact-sheet", "Images, questions and answers, right and wrong")
    print_note("", join_messages("", ["# ", title]))
    print_result(short_path(sheet))
