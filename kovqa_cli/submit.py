"""kovqa submit: predictions -> the file a challenge takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def complete_challenge(incomplete: str) -> list[str]:
    """Names of challenges that begin like this."""
    return [name for name in ("vqav2", "coco") if name.startswith(incomplete)]


def submit(
    challenge: Annotated[
        str, typer.Argument(help="vqav2 or coco (captions).", autocompletion=complete_challenge)
    ],
    predictions: Annotated[
        Path, typer.Option("--predictions", help="Predictions file (kovqa predict, kovqa caption).")
    ],
    sample: Annotated[
        Path,
        typer.Option(
            "--sample", help="Which ids: the challenge's own JSON file, or an index split (.jsonl)."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write and check a submission file; nothing is sent anywhere."""
    from kovqa_core.results import submit as work

    from kovqa_cli import show

    show.submission(work.submit(challenge, predictions, sample, output), json, quiet)
