"""kovqa import: a model of an original -> a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError

from kovqa_cli import options


def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint of VQA_NIA (infer_model_….pt), or folder of LLaVA.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="VQA_NIA: the data_ko.csv it was trained with, or a list of its answers in order.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer", help="VQA_NIA: its tokenizer: file, folder or asset.", envvar="KOVQA_TOKENIZER"
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="LLaVA, projector or LoRA only: the Vicuna it was trained on, folder or asset."
        ),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            "--vision", help="LLaVA: its CLIP, folder or asset. [default: the one it names, in assets/]"
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that the weights do not tell.", metavar="model.KEY=VALUE"),
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Make a model of a checkpoint of VQA_NIA or a folder of LLaVA; nothing in the files is run."""
    from kovqa_cli.output import models, progress

    is_llava = checkpoint.is_dir()
    if is_llava and labels:
        raise SettingsError(
            f"{checkpoint} is a folder, as LLaVA's are: it needs no --labels", "leave it away"
        )
    if not is_llava and (base or vision):
        raise SettingsError(f"{checkpoint} is no folder: --base and --vision are LLaVA's", "leave them away")
    with progress.stage_status(quiet or json) as told:
        if told:
            told("importing", 0, 0.0)
        if is_llava:
            from kovqa_core.models.vlm.import_llava import import_llava_folder

            converted = import_llava_folder(checkpoint, output, base, vision, sets or ())
        elif labels is None or tokenizer is None:
            raise SettingsError("a checkpoint of VQA_NIA needs --labels and --tokenizer", "give both")
        else:
            from kovqa_core.models.fusion.import_original import import_original_checkpoint

            found = import_original_checkpoint(checkpoint, labels, tokenizer, output, sets or ())
    if is_llava:
        models.print_converted_llava(output, converted, json, quiet)
    else:
        models.print_imported_model(output, found, json, quiet)
