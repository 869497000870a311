"""kovqa demo: the whole journey on drawn Korean scenes, offline, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("demo"),
    pictures: Annotated[int, typer.Option("--pictures", min=64, help="Pictures to learn from.")] = 5000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the drawings.")] = 7,
    sets: options.SetOption = None,
) -> None:
    """Draw scenes, train a tokenizer and a small BEiT-3 on them, answer held-out questions."""
    from kovqa_core.demo import journey

    from kovqa_cli.output import console, progress

    with progress.progress_bar("drawing") as told:
        journey.draw_demo_data(output, pictures, seed, told)
    for title, words in journey.demo_commands(output, sets or []):
        console.print_note(f"\n# {title}\n$ {journey.shell_line(words)}")
        journey.run_command(words)
    sheet = journey.write_contact_sheet(output)
    console.print_note("\n# Pictures, questions and answers, right and wrong")
    console.print_result(console.short_path(sheet))
