"""kovqa export: a model -> a folder that other libraries read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kovqa_cli import options


def export(
    model: Annotated[
        Path, typer.Argument(help="Run folder or step folder.", autocompletion=options.complete_run)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    as_upstream: Annotated[
        bool,
        typer.Option(
            "--as-upstream", help="Of a LLaVA: mm_projector.bin and config.json, as its scripts read."
        ),
    ] = False,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a model for other libraries: transformers and timm, or the original's names; with a card."""
    from kovqa_core.models.export import export_checkpoint
    from kovqa_core.models.family import LoadOptions

    from kovqa_cli.output import models, progress

    with progress.stage_status(quiet or json) as told:
        if told:
            told("exporting", 0, 0.0)
        options = LoadOptions(trust_remote_code=trust_remote_code)
        report = export_checkpoint(model, output, options, as_upstream=as_upstream)
    models.print_exported_model(report, json, quiet)
