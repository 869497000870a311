"""The models of a server: loaded once, each with a name that requests use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import LoadedModel, load_model
from kovqa_core.download.hub_copies import hub_identity
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.messages import message
from kovqa_core.models.checkpoint_info import CHECKPOINT_FILE, has_checkpoint_info, read_checkpoint_info
from kovqa_core.models.family import FamilyModel, load_family
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.web.http_errors import RefusedRequest

MAX_TOP_K = 20  # likeliest answers that a request may ask for
MAX_QUESTION_LETTERS = 10_000


@dataclass(frozen=True)
class ServedModel:
    """A model, and what `/v1/models` says of it.

    Attributes:
        id: its name in requests.
        task: "vqa" or "caption".
        family: name of its family.
        top_k: likeliest answers that it can give; 1: it has no others.
        created: when its checkpoint was made, in seconds since 1970.
        set_on_text: see `ModelFamily`.
        reads: what it reads besides image and question, of "context" and "choices".
    """

    id: str
    loaded: LoadedModel
    task: str
    family: str
    top_k: int
    created: int
    set_on_text: Callable[[FamilyModel, Callable[[str], None] | None], None] | None = None
    reads: tuple[str, ...] = ()


def load_served_models(
    folders: Sequence[Path], options: AnswerOptions, device: torch.device | None = None
) -> dict[str, ServedModel]:
    """The models of a server by their names, which are those of their run folders, or on the hub.

    Args:
        folders: run, step or Hugging Face folders, or names of the hub's models; none: the newest finished run that
            answers questions, else the newest one that captions.
        options: how they answer; `model` and `task` of it are not looked at.
        device: None: this machine's GPU if it has one, else its CPU.

    Raises:
        ModelError: a folder holds no model, or there is no finished run.
    """
    models: dict[str, ServedModel] = {}
    for folder in folders or [_newest_model()]:
        model = _load_served_model(folder, options, models, device)
        models[model.id] = model
    return models


def _newest_model() -> Path:
    try:
        return find_model_folder(None, "vqa")
    except ModelError as error:
        with contextlib.suppress(ModelError):
            return find_model_folder(None, "caption")
        raise error from None


def _model_name(folder: Path, step: Path) -> str:
    """The name of the run; of a step folder, the run's too; of a copy of a model of the hub, OWNER/NAME."""
    if hub := hub_identity(step):
        return hub.partition("@")[0]
    path = folder.resolve()
    is_step = (path.parent / "run.yaml").is_file() and not (path / "run.yaml").is_file()
    return (path.parent if is_step else path).name


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    """The name, or with a number where another model has it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _load_served_model(
    folder: Path, options: AnswerOptions, others: Mapping[str, object], device: torch.device | None
) -> ServedModel:
    step = find_model_folder(folder, "vqa")
    name = _free_name(_model_name(folder, step), others)
    info = read_checkpoint_info(step)
    loaded = load_model(replace(options, model=folder, task=info.task), device)
    family, top_k = load_family(info.family), 1
    if info.task == "vqa" and family.set_top_k is not None:
        with contextlib.suppress(SettingsError):  # it writes freely, and has no others
            family.set_top_k(loaded.model, MAX_TOP_K)
            top_k = MAX_TOP_K
    created = (
        int((loaded.folder / CHECKPOINT_FILE).stat().st_mtime) if has_checkpoint_info(loaded.folder) else 0
    )
    prompt_columns = family.prompt_columns
    reads = tuple(prompt_columns(loaded.processor)) if prompt_columns and info.task == "vqa" else ()
    return ServedModel(name, loaded, info.task, info.family, top_k, created, family.set_on_text, reads)


def find_served_model(models: Mapping[str, ServedModel], name: str, task: str | None = None) -> ServedModel:
    """The model that a request means.

    Args:
        models: of the server.
        name: in the request; "": the first that can do the task.
        task: "vqa" or "caption"; None: either.

    Raises:
        RefusedRequest: there is none (404), or it is for the other task (400).
    """
    model = models.get(name)
    if model is None and not name:
        model = next((each for each in models.values() if task in (None, each.task)), None)
        if model is None:
            raise RefusedRequest(
                400, message("serve.no-model-for-task", "no model here does {task}", task=task)
            )
    if model is None:
        names = ", ".join(models)
        raise RefusedRequest(
            404,
            message(
                "serve.no-such-model", "no model {name!r} here; there are: {names}", name=name, names=names
            ),
        )
    if task not in (None, model.task):
        raise RefusedRequest(
            400,
            message(
                "serve.other-task", "{model} is for /v1/{own_task}, not for /v1/{task}",
                model=model.id, own_task=model.task, task=task,
            ),
        )  # fmt: skip
    return model
