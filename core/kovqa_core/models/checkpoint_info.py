"""`kovqa.json` of a checkpoint folder: which family reads it, for which task, and where it came from. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.errors import ModelError
from kovqa_core.files import write_json
from kovqa_core.messages import message
from kovqa_core.models import HF_FOLDER_FAMILY, family_names
from kovqa_core.models.closed_folder import read_model_json
from kovqa_core.runs.folder import is_earlier_export, is_huggingface_folder

CHECKPOINT_FILE = "kovqa.json"
_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "family": (str,),
    "task": (str,),
    "recipe": (str, type(None)),
    "step": (int, type(None)),
    "score": (int, float, type(None)),
    "model": (dict, type(None)),
    "imported": (dict,),
}
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


def has_checkpoint_info(folder: Path) -> bool:
    """Is there a `kovqa.json` in a folder?"""
    return (folder / CHECKPOINT_FILE).is_file()


def read_checkpoint_info(folder: Path) -> CheckpointInfo:
    """What `kovqa.json` of a checkpoint folder says; a Hugging Face folder needs none.

    Raises:
        ModelError: no checkpoint, a later format, or a file that names neither family nor task.
    """
    file = folder / CHECKPOINT_FILE
    if not os.path.lexists(file):
        if is_huggingface_folder(folder):
            return CheckpointInfo(HF_FOLDER_FAMILY, "vqa")
        if is_earlier_export(folder):
            classes = read_model_json(folder / "config.json").get("num_classes")
            return CheckpointInfo("beit3", "caption" if classes is None else "vqa")
        raise ModelError(
            message("models.no-checkpoint", "no kovqa model in {folder}", folder=folder),
            message("models.no-checkpoint.hint", "give a run folder or one of its step folders"),
        )
    fields = read_model_json(file)
    version = fields.get("format", 0)
    if not isinstance(version, int) or isinstance(version, bool):
        raise _odd_field(file, "format", version)
    if version > CHECKPOINT_FORMAT:
        raise ModelError(
            message("models.later-format", "{folder} was written by a later kovqa", folder=folder),
            message("models.later-format.hint", "update kovqa"),
        )
    # Unknown keys are passed over: a version that adds one need not raise the format.
    known = {name: fields[name] for name in _FIELD_TYPES if name in fields}
    if not {"family", "task"} <= known.keys():
        raise ModelError(
            message("models.broken-checkpoint-info", "{file} names no family or no task", file=file),
            message("models.broken-checkpoint-info.hint", "copy the folder again"),
        )
    for name, value in known.items():
        if not isinstance(value, _FIELD_TYPES[name]) or isinstance(value, bool):
            raise _odd_field(file, name, value)
    info = CheckpointInfo(**known)  # type: ignore[arg-type]  # checked one by one above
    if info.family not in family_names():
        raise ModelError(
            message(
                "models.family-not-here",
                "{file}: no model family {family} here",
                file=file,
                family=info.family,
            ),
            message(
                "models.family-not-here.hint",
                "install the plug-in that brings it (kovqa doctor lists those that are here), or copy the folder again",
            ),
        )
    if info.task not in ("vqa", "caption"):
        raise _odd_field(file, "task", info.task)
    return info


def _odd_field(file: Path, key: str, value: object) -> ModelError:
    return ModelError(
        message(
            "models.odd-checkpoint-field",
            "{file}: {key}: {value:.60} is none",
            file=file,
            key=key,
            value=repr(value),
        ),
        message("models.broken-checkpoint-info.hint", "copy the folder again"),
    )
