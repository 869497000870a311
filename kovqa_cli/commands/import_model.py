"""kovqa import: a model of an original -> a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.progress import Progress

from kovqa_cli import options


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of VQA_NIA (infer_model_….pt), LLaVA folder, or its mm_projector.bin.",
            metavar="PATH",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", metavar="DIR")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="VQA_NIA: the data_ko.csv it was trained on, or a list of its answers in order.",
            metavar="FILE",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="VQA_NIA: its tokenizer: file, folder or asset.",
            envvar="KOVQA_TOKENIZER",
            metavar="NAME",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="LLaVA, projector or LoRA only: the Vicuna it was trained on, folder or asset.",
            metavar="NAME",
        ),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            "--vision",
            help="LLaVA: its CLIP, folder or asset. [default: the one its configuration names, in assets/]",
            metavar="NAME",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting that the weights do not tell. Repeatable.", metavar="model.KEY=VALUE"
        ),
    ] = None,
    *,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Make a model from a VQA_NIA checkpoint or a LLaVA folder.

    Nothing in the files is run.
    """
    from kovqa_core.models.vlm.llava_folder import is_projector_file

    from kovqa_cli.output import models, progress

    importing = Progress(message("import.importing", "importing"))
    if checkpoint.is_dir() or is_projector_file(checkpoint):
        _refuse_fusion_options(checkpoint, labels)
        from kovqa_core.models.vlm.import_llava import import_llava_folder

        with progress.show_progress(quiet or json) as on_progress:
            on_progress(importing)
            llava = import_llava_folder(checkpoint, output, base, vision, sets or (), on_progress)
        models.print_converted_llava(output, llava, as_json=json, quiet=quiet)
        return
    _refuse_llava_options(checkpoint, base, vision)
    if labels is None or tokenizer is None:
        raise SettingsError(
            message(
                "import.fusion-options-missing", "a checkpoint of VQA_NIA needs --labels and --tokenizer"
            ),
            message("import.fusion-options-missing.hint", "give both"),
        )
    from kovqa_core.models.fusion.import_original import import_original_checkpoint

    with progress.show_progress(quiet or json) as on_progress:
        on_progress(importing)
        fusion = import_original_checkpoint(checkpoint, labels, tokenizer, output, sets or (), on_progress)
    models.print_imported_model(output, fusion, as_json=json, quiet=quiet)


def _refuse_fusion_options(folder: Path, labels: Path | None) -> None:
    # Not --tokenizer: KOVQA_TOKENIZER may stand in the environment for other commands.
    if labels:
        raise SettingsError(
            message(
                "import.labels-not-needed",
                "{folder} is a folder, as LLaVA's are: it needs no --labels",
                folder=folder,
            ),
            message("import.labels-not-needed.hint", "leave it out"),
        )


def _refuse_llava_options(file: Path, base: str | None, vision: str | None) -> None:
    if base or vision:
        raise SettingsError(
            message(
                "import.llava-options-not-needed",
                "{file} is not a folder: --base and --vision are LLaVA's",
                file=file,
            ),
            message("import.llava-options-not-needed.hint", "leave them out"),
        )
