"""What every model family offers: two objects and four functions. Nothing else of it is known.

A family is a package with `family.py`, which has

* `new(recipe, answers)              -> (model, processor, note)`: from nothing or from published weights,
* `load(folder, data)                -> (model, processor)`: from a checkpoint,
* `save(model, processor, folder)    -> None`: what `load` reads, nothing for resuming,
* `export(folder, output)            -> text`: a checkpoint as other libraries read it; Python that does;

and, if it can do more than others,

* `decode(model, decoding)           -> None`: from now on the model answers in this way,
* `export_upstream(folder, output)   -> text`: `export`, but as the original's own training saves it,
* `REMOTE_CODE = True`: its models may bring Python code; `load` and both exports take `trust_remote_code`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from kovqa_core.data.answers import read_answers
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.data.example import Answer
from kovqa_core.errors import ModelError, SettingsError, unknown_name_error
from kovqa_core.files import read_json, write_json
from kovqa_core.messages import message
from kovqa_core.models import FAMILIES, HF_FOLDER_FAMILY
from kovqa_core.models.batches import ExampleProcessor, ModelBatch
from kovqa_core.runs.folder import is_huggingface_folder
from kovqa_core.settings.recipe import DataSettings, Recipe

CHECKPOINT_FORMAT = 1  # of checkpoint folders


class FamilyModel(Protocol):
    """A `torch.nn.Module` that learns from batches and answers them."""

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """{"loss": mean over the batch's examples, …}."""

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer an example, in order."""

    def prepare(self, activation_checkpointing: bool, compile: bool) -> None:
        """Settings of the machine that change no number."""

    def units(self) -> list[nn.Module]:
        """Parts that may be cut up among processes one at a time: called as a whole, inner ones first."""

    @property
    def depth(self) -> int:
        """Depth of the head; 0 is the stem."""

    def depth_of(self, name: str) -> int:
        """Depth of a parameter, for layer-wise learning rates."""

    def is_head(self, name: str) -> bool:
        """Does the head's learning rate factor apply?"""

    def is_undecayed(self, name: str) -> bool:
        """Is this matrix free of weight decay?"""

    def is_text(self, name: str) -> bool:
        """Does this learn in the phase that begins with the text side alone?"""


def family_module(name: str) -> Any:
    """The `family` module of a family."""
    if name not in FAMILIES:
        raise unknown_name_error(
            message("models.unknown-family", "unknown model family '{family}'", family=name), name, FAMILIES
        )
    return importlib.import_module(FAMILIES[name] + ".family")


def create_model(recipe: Recipe, answers: list[str]) -> tuple[Any, ExampleProcessor, str]:
    """A model to be trained, its processor, and a note on where its weights came from."""
    return family_module(recipe.family).new_model(recipe, answers)


def write_model_folder(model: Any, processor: Any, folder: Path, about: dict[str, Any]) -> None:
    """Write a checkpoint folder; `about` must name family and task."""
    family_module(about["family"]).save_model(model, processor, folder)
    write_json(folder / "kovqa.json", {"format": CHECKPOINT_FORMAT, **about})


def read_model_folder(
    folder: Path,
    task: str,
    data: DataSettings | None = None,
    decoding: DecodingOptions = GREEDY_DECODING,
    trust_remote_code: bool = False,
) -> tuple[Any, ExampleProcessor]:
    """Read a checkpoint folder that can do a task.

    Args:
        folder: where it lies.
        task: "vqa" or "caption".
        data: how training examples are augmented.
        decoding: how it is to answer.
        trust_remote_code: did the user, in this very command, allow code of a model folder to run?

    Raises:
        ModelError: no checkpoint, of a later format, or for another task.
        SettingsError: it can only answer in its own way; it has no code of its own.
    """
    about = describe_checkpoint(folder)
    if about["task"] != task:
        raise ModelError(
            f"{folder} was trained for {about['task']}, not for {task}", "name another with --model"
        )
    chosen = family_module(about["family"])
    if decoding != GREEDY_DECODING and not hasattr(chosen, "set_decoding"):
        raise SettingsError(
            f"{folder} is of family {about['family']}, which answers in one way only",
            "leave --answers, --choices and --temperature away, or name a vision language model with --model",
        )
    trust = trust_option(about["family"], trust_remote_code)
    model, processor = chosen.load_model(folder, data or DataSettings(), **trust)
    if decoding != GREEDY_DECODING:
        chosen.set_decoding(model, decoding)
    return model, processor


def trust_option(name: str, trust_remote_code: bool) -> dict[str, bool]:
    """The argument that tells a family what the user allowed; none where nothing is.

    Raises:
        SettingsError: models of this family bring no code.
    """
    if trust_remote_code and not hasattr(family_module(name), "REMOTE_CODE"):
        raise SettingsError(f"models of family {name} bring no code along", "leave out --trust-remote-code")
    return {"trust_remote_code": True} if trust_remote_code else {}


def describe_checkpoint(folder: Path) -> dict[str, Any]:
    """What `kovqa.json` says of a checkpoint folder; a Hugging Face folder needs none."""
    if not (folder / "kovqa.json").is_file():
        if is_huggingface_folder(folder):
            return {"format": CHECKPOINT_FORMAT, "family": HF_FOLDER_FAMILY, "task": "vqa"}
        raise ModelError(f"no kovqa model in {folder}", "give a run folder or one of its step folders")
    about = read_json(folder / "kovqa.json")
    if about.get("format", 0) > CHECKPOINT_FORMAT:
        raise ModelError(f"{folder} was written by a later kovqa", "update kovqa")
    return about


def read_answer_classes(folder: Path, classes: int | None) -> list[str]:
    """The classes of a checkpoint folder.

    Raises:
        ModelError: not as many as the model was trained on.
    """
    answers = read_answers(folder / "answers.txt")
    if len(answers) != classes:
        raise ModelError(
            f"{folder}/answers.txt lists {len(answers)} answers, the model was trained on {classes}",
            "put back the answers.txt that was saved with it",
        )
    return answers
