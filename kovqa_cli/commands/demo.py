"""kovqa demo: the whole journey on drawn Korean scenes, offline, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.messages import message

from kovqa_cli import options


def demo(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything.", metavar="DIR")
    ] = Path("demo"),
    images: Annotated[
        int, typer.Option("--pictures", min=64, help="Number of images to learn from.", metavar="N")
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawings.", metavar="N")] = 7,
    sets: options.SetOption = None,
) -> None:
    """Try everything on drawn Korean scenes, offline.

    Draws the scenes, trains a tokenizer and a small BEiT-3 on them, answers held-out questions.
    """
    from kovqa_core.demo import journey

    from kovqa_cli.output.console import print_note, print_result, short_path
    from kovqa_cli.output.progress import show_progress

    with show_progress() as on_progress:
        journey.draw_demo_data(output, images, seed, on_progress)
    for step in journey.demo_steps(output, sets or []):
        print_note("", f"# {step.title}", f"$ {journey.shell_line(step.arguments)}")
        journey.run_command(step.arguments)
    sheet = journey.write_contact_sheet(output)
    title = message("demo.contact-sheet", "Images, questions and answers, right and wrong")
    print_note("", f"# {title}")
    print_result(short_path(sheet))
