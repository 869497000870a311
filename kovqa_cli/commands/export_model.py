"""kovqa export: a model -> a folder that other libraries read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.progress import Progress

from kovqa_cli import completion, options


def export(
    model: Annotated[
        Path,
        typer.Argument(
            help="Run folder or step folder.", autocompletion=completion.complete_run, metavar="DIR"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", metavar="DIR")],
    *,
    as_upstream: Annotated[
        bool,
        typer.Option(
            "--as-upstream", help="Of a LLaVA: mm_projector.bin and config.json, as its scripts read them."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Let the other library read it alone; refuse it where logits differ.",
        ),
    ] = False,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx",
            help="For onnxruntime, of BEiT-3 and fusion models: networks, tokenizer and a program, without torch.",
        ),
    ] = False,
    licence: Annotated[
        str,
        typer.Option("--licence", help="For its card. [default: its base's, if known]", metavar="NAME"),
    ] = "",
    scores: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--scores",
            help="Predictions and the split they answer: their score goes into the card.",
            metavar="FILE SPLIT",
        ),
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a model for other libraries to read.

    For transformers and timm, or under the original's names; with a card that says how to load it.
    """
    from kovqa_core.export.export_model import export_checkpoint
    from kovqa_core.models.family import LoadOptions

    from kovqa_cli.output import models, progress

    load_options = LoadOptions(trust_remote_code=trust_remote_code)
    if onnx:
        _refuse_with_onnx(as_upstream=as_upstream, trust_remote_code=trust_remote_code)
    with progress.show_progress(quiet or json) as on_progress:
        on_progress(Progress(message("export.exporting", "exporting")))
        if onnx:
            from kovqa_core.export.onnx_export import export_onnx

            report = export_onnx(model, output, on_progress, licence, scores)
            models.print_exported_model(report, as_json=json, quiet=quiet)
            return
        report = export_checkpoint(
            model,
            output,
            load_options,
            as_upstream=as_upstream,
            verify=verify,
            licence=licence,
            scored=scores,
            on_progress=on_progress,
        )
    models.print_exported_model(report, as_json=json, quiet=quiet)


def _refuse_with_onnx(**options: bool) -> None:
    """ONNX is a form of its own, and no network of it brings code."""
    for name, given in options.items():
        if given:
            raise SettingsError(
                message(
                    "export.not-with-onnx",
                    "--onnx does not go with {option}",
                    option=f"--{name.replace('_', '-')}",
                ),
                message("export.not-with-onnx.hint", "give one of the two"),
            )
