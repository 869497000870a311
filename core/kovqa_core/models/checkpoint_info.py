"""`kovqa.json` of a checkpoint folder: which family reads it, for which task, and where it came from. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json, write_json
from kovqa_core.messages import message
from kovqa_core.models import HF_FOLDER_FAMILY
from kovqa_core.runs.folder import is_huggingface_folder

CHECKPOINT_FILE = "kovqa.json"
CHECKPOINT_FORMAT = 1  # of checkpoint folders; a later one is refused


@dataclass(frozen=True)
class CheckpointInfo:
    """What `kovqa.json` says.

    Attributes:
        family: name of the model's family.
        task: "vqa" or "caption".
        recipe: name of the recipe it was trained by; None: not trained by kovqa.
        step: optimizer steps it was trained for.
        score: of the validation split, once that was answered.
        model: settings beside `config.json`, where that file is another library's.
        imported: file names, hashes and settings of the checkpoint it was converted from.
    """

    family: str
    task: str
    recipe: str | None = None
    step: int | None = None
    score: float | None = None
    model: Mapping[str, object] | None = None
    imported: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The file's fields; what nobody knows is left out."""
        optional: dict[str, object] = {
            "recipe": self.recipe,
            "step": self.step,
            "score": self.score,
            "model": self.model,
        }
        fields = {name: value for name, value in optional.items() if value is not None}
        if self.step is not None:  # a step that is not evaluated yet says so: null
            fields.setdefault("score", None)
        imported = {"imported": self.imported} if self.imported else {}
        return {"format": CHECKPOINT_FORMAT, "family": self.family, "task": self.task, **fields, **imported}


def write_checkpoint_info(folder: Path, info: CheckpointInfo) -> None:
    """Write a folder's `kovqa.json`."""
    write_json(folder / CHECKPOINT_FILE, info.to_json())


def read_checkpoint_info(folder: Path) -> CheckpointInfo:
    """What `kovqa.json` of a checkpoint folder says; a Hugging Face folder needs none.

    Raises:
        ModelError: no checkpoint, a later format, or a file that names neither family nor task.
    """
    file = folder / CHECKPOINT_FILE
    if not file.is_file():
        if is_huggingface_folder(folder):
            return CheckpointInfo(HF_FOLDER_FAMILY, "vqa")
        raise ModelError(
            message("models.no-checkpoint", "no kovqa model in {folder}", folder=folder),
            message("models.no-checkpoint.hint", "give a run folder or one of its step folders"),
        )
    fields = read_json(file)
    if not isinstance(fields, dict):
        raise _broken_info(file)
    if fields.get("format", 0) > CHECKPOINT_FORMAT:
        raise ModelError(
            message("models.later-format", "{folder} was written by a later kovqa", folder=folder),
            message("models.later-format.hint", "update kovqa"),
        )
    # Unknown keys are passed over: a version that adds one need not raise the format.
    known = {name: fields[name] for name in CheckpointInfo.__dataclass_fields__ if name in fields}
    try:
        return CheckpointInfo(**known)
    except TypeError:
        raise _broken_info(file) from None


def _broken_info(file: Path) -> ModelError:
    return ModelError(
        message("models.broken-checkpoint-info", "{file} names no family or no task", file=file),
        message("models.broken-checkpoint-info.hint", "copy the folder again"),
    )
