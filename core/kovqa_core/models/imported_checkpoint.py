"""What importing a checkpoint of an original is in every family: settings, answers, the folder written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.errors import ModelError, unknown_name_error
from kovqa_core.files import file_sha256
from kovqa_core.messages import Message, message
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import CheckpointInfo, has_checkpoint_info
from kovqa_core.models.family import FamilyModel
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress
from kovqa_core.settings.overrides import apply_overrides
from kovqa_core.settings.renamed_keys import recipe_keys
from kovqa_core.settings.strict_yaml import SettingsDocument, YamlMapping
from kovqa_core.whole_folder import require_new_folder, write_new_folder


@dataclass(frozen=True)
class ImportedCheckpoint:
    """What became of a checkpoint.

    Attributes:
        task: "vqa" or "caption".
        model: what it is, in words.
        used, unused: names of its tensors; no answer depends on what is unused. Weights beside the
            model's, such as `model_ema`, are unused by the key they lie below.
        num_classes: number of answers; None: it writes captions.
        arguments: of the command that trained it, where it remembers them.
        warnings: what may be wrong though everything fits.
    """

    task: str
    model: str
    used: list[str]
    unused: list[str]
    num_classes: int | None
    arguments: Mapping[str, str | int | float]
    warnings: Sequence[Message] = ()


def read_import_settings(family_name: str, told: YamlMapping, sets: Sequence[str]) -> SettingsDocument:
    """The `model:` settings of a checkpoint: what its tensors tell, and over it what the user sets.

    Args:
        family_name: whose settings they are.
        told: by the tensors.
        sets: `model.a=b` texts.

    Raises:
        SettingsError: a text that sets something else than the model.
    """
    document = apply_overrides(
        SettingsDocument({"model": told}, {}), sets, "--set", renamed=recipe_keys(family_name)
    )
    if unknown := document.values.keys() - {"model"}:
        raise unknown_name_error(
            message("models.unknown-setting", "unknown setting '{name}'", name=min(unknown)),
            min(unknown),
            ["model"],
            message("models.unknown-setting.hint", "a checkpoint only has settings of its model"),
        )
    return document


def require_class_count(answers: Sequence[str], classes: int, labels: Path, hint: Message) -> None:
    """See that a list of answers is as long as the checkpoint's head.

    Raises:
        ModelError: it has more or fewer: every answer would be another class's.
    """
    if len(answers) != classes:
        raise ModelError(
            message(
                "fusion.other-labels",
                "{labels} gives {listed:,} answers, the checkpoint has {classes:,}",
                labels=labels,
                listed=len(answers),
                classes=classes,
            ),
            hint,
        )


def write_imported_model(
    folder: Path,
    model: FamilyModel,
    processor: ExampleProcessor,
    info: CheckpointInfo,
    on_progress: OnProgress,
) -> None:
    """Write a model as a checkpoint folder, whole or not at all; see `write_new_folder`."""
    with output_lock(folder):
        require_new_folder(folder, has_checkpoint_info)
        write_new_folder(
            folder,
            lambda unfinished: family.write_model_folder(model, processor, unfinished, info),
            on_progress,
        )


def describe_files(checkpoint: Path, labels: Path | None) -> dict[str, str]:
    """Names and hashes of what a model was made of, for its `kovqa.json`."""
    files = {"checkpoint": checkpoint} if labels is None else {"checkpoint": checkpoint, "labels": labels}
    return {
        key: text
        for name, file in files.items()
        for key, text in ((name, file.name), (f"{name}_sha256", file_sha256(file)))
    }
