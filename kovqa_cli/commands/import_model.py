"""kovqa import: a model of an original -> a model of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.messages import message

from kovqa_cli import completion, options


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of BEiT-3 (beit3_…_vqa.pth, …_captioning.pth) or VQA_NIA (infer_model_….pt), file or asset; "
            "LLaVA folder, or its mm_projector.bin.",
            metavar="PATH",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", metavar="DIR")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="The model's answers in order. BEiT-3: its answer2label.txt. VQA_NIA: the data_ko.csv it was trained on.",
            metavar="FILE",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="BEiT-3, VQA_NIA: its tokenizer: file, folder or asset. [default: beit3.spm for files called beit3_…]",
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
            "--set",
            help="A setting that the weights do not tell. Repeatable.",
            metavar="model.KEY=VALUE",
            autocompletion=completion.complete_setting,
        ),
    ] = None,
    *,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Make a model from a checkpoint of BEiT-3 or VQA_NIA, or a LLaVA folder.

    Nothing in the files is run.
    """
    from kovqa_core.models.beit3.import_original import import_beit3_checkpoint, is_beit3_checkpoint
    from kovqa_core.models.fusion.import_original import import_original_checkpoint
    from kovqa_core.models.fusion.state_dict_names import is_fusion_checkpoint
    from kovqa_core.models.vlm.llava_folder import is_projector_file
    from kovqa_core.models.weights_file import is_unpacked_archive, read_weight_names
    from kovqa_core.progress import Progress

    from kovqa_cli.output import models, progress

    checkpoint = _find_checkpoint(checkpoint)
    importing = Progress(message("import.importing", "importing"))
    if (checkpoint.is_dir() and not is_unpacked_archive(checkpoint)) or is_projector_file(checkpoint):
        _refuse_labels(checkpoint, labels)
        from kovqa_core.models.vlm.import_llava import import_llava_folder

        with progress.show_progress(quiet or json) as on_progress:
            on_progress(importing)
            llava = import_llava_folder(checkpoint, output, base, vision, sets or (), on_progress)
        models.print_converted_llava(output, llava, as_json=json, quiet=quiet)
        return
    _refuse_llava_options(checkpoint, base, vision)
    names = read_weight_names(checkpoint)
    with progress.show_progress(quiet or json) as on_progress:
        on_progress(importing)
        if is_beit3_checkpoint(names):
            imported = import_beit3_checkpoint(checkpoint, labels, tokenizer, output, sets or (), on_progress)
        elif is_fusion_checkpoint(names):
            imported = import_original_checkpoint(
                checkpoint, *_require_fusion_options(labels, tokenizer), output, sets or (), on_progress
            )
        else:
            raise _unknown_checkpoint_error(checkpoint, names)
    models.print_imported_model(output, imported, as_json=json, quiet=quiet)


def _find_checkpoint(path: Path) -> Path:
    """The file or folder of a path, or of an asset's name."""
    from kovqa_core.download.find_asset import find_asset

    return find_asset(
        str(path), message("import.checkpoint-not-found", "checkpoint {path} not found", path=path)
    )


def _require_fusion_options(labels: Path | None, tokenizer: str | None) -> tuple[Path, str]:
    if labels is None or tokenizer is None:
        raise SettingsError(
            message(
                "import.fusion-options-missing", "a checkpoint of VQA_NIA needs --labels and --tokenizer"
            ),
            message("import.fusion-options-missing.hint", "give both"),
        )
    return labels, tokenizer


def _unknown_checkpoint_error(checkpoint: Path, names: Sequence[str]) -> ModelError:
    return ModelError(
        message(
            "import.unknown-checkpoint",
            "{checkpoint} is neither a BEiT-3 nor a VQA_NIA: its weights have names such as {names}",
            checkpoint=checkpoint,
            names=", ".join(names[:2]),
        ),
        message(
            "import.unknown-checkpoint.hint",
            "a folder of transformers needs no import: kovqa predict --model DIR",
        ),
    )


def _refuse_labels(folder: Path, labels: Path | None) -> None:
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
