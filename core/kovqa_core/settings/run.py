"""Run: recipe and profile together, resolved. `run.yaml` is its text and the worker's whole contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import Field

from kovqa_core.errors import SettingsError
from kovqa_core.files import write_text
from kovqa_core.messages import message
from kovqa_core.settings.overrides import renamed_path, with_new_names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import OptimSettings, Recipe
from kovqa_core.settings.renamed_keys import run_keys
from kovqa_core.settings.strict_yaml import (
    KeyPath,
    SettingsDocument,
    StrictSettings,
    YamlMapping,
    build_settings,
    dotted_path,
    dump_yaml,
    read_yaml,
)

RUN_FILE = "run.yaml"


class WorkerJob(Protocol):
    """What the processes of a profile do; a file in its folder describes it."""

    @property
    def profile(self) -> Profile:
        """The machine."""

    @property
    def folder(self) -> Path:
        """Holds that file, logs and errors."""


class RecipeChange(StrictSettings):
    """A setting of the recipe that was changed while the run was under way (`--resume --change`)."""

    step: int = Field(
        ge=0, description="optimizer steps done by then: the change counts from the next one on"
    )
    key: str = Field(description="like optim.lr")
    before: int | float | None = None
    value: int | float | None = None


class Run(StrictSettings):
    """Everything that was requested, and what follows from it.

    Its recipe has the settings in force now, changes included; `optim_at_step` has those of any step.
    """

    folder: Path
    recipe: Recipe
    profile: Profile
    micro_batch: int = Field(ge=1, description="examples of one forward pass in one process")
    accumulate: int = Field(ge=1, description="forward passes of one process per optimizer step")
    probe: bool = Field(False, description="try a step first, with half the micro-batch until it fits")
    # True where nothing is said: runs of earlier versions knew no limit. The command says False.
    allow_left_out: bool = Field(True, description="train on though over 10 % of the rows are left out")
    argv: list[str] = Field([], description="the command that was typed")
    origin: dict[str, str] = Field({}, description="where each setting came from")
    changes: list[RecipeChange] = Field([], description="settings changed on the way, oldest first")
    id: str = Field(
        "",
        pattern="^([0-9a-f]{32})?$",
        description="random; of runs whose settings can run code (runs/consent.py)",
    )


def optim_at_step(run: Run, step: int) -> OptimSettings:
    """The settings by which optimizer step `step` (from 0) is made: changes that came later are undone."""
    # Newest first: of several changes of one key, the oldest undone says what was there before them.
    before = {
        change.key.removeprefix("optim."): change.before
        for change in reversed(run.changes)
        if change.step > step
    }
    return run.recipe.optim.model_copy(update=before) if before else run.recipe.optim


def setting_origin(origin: Mapping[str, str], key: str) -> str:
    """Where a setting came from, by `Run.origin`, like "recipe.optim.lr"; empty: it is the default."""
    while key and key not in origin:
        key = key.rpartition(".")[0]
    return origin.get(key, "")


def part_origin(origin: Mapping[str, str], part: str) -> dict[KeyPath, str]:
    """The places of a recipe's or profile's own keys, by `Run.origin`.

    Args:
        origin: of all settings.
        part: "recipe" or "profile".
    """
    keys = {key: tuple(key.split(".")) for key in origin}
    return {path[1:]: origin[key] for key, path in keys.items() if path[0] == part}


def split_global_batch(
    global_batch: int, max_micro_batch: int, processes: int, loss_micro_batch: int | None = None
) -> tuple[int, int]:
    """How one optimizer step is split: (micro-batch, accumulation).

    The largest micro-batch a process can hold that makes processes × micro-batch × accumulation
    equal to the recipe's global batch exactly: the experiment is the same on every machine. A recipe that
    averages over micro-batches of its own (`optim.loss_micro_batch`) gets just those.

    Raises:
        SettingsError: the global batch cannot be shared by the processes equally, in whole micro-batches.
    """
    per_process, rest = divmod(global_batch, processes)
    if rest or not per_process:
        raise _unequal_batch(global_batch, processes, processes)
    if loss_micro_batch is not None:
        micro_batch = min(loss_micro_batch, global_batch)
        return micro_batch, _count_loss_micro_batches(per_process, micro_batch, processes)
    largest = min(per_process, max_micro_batch)
    micro_batch = max(size for size in range(1, largest + 1) if per_process % size == 0)
    return micro_batch, per_process // micro_batch


def _count_loss_micro_batches(per_process: int, loss_micro_batch: int, processes: int) -> int:
    accumulate, rest = divmod(per_process, loss_micro_batch)
    if rest:
        raise SettingsError(
            message(
                "settings.unequal-micro-batches",
                "{processes} processes cannot share a global batch of {global_batch} equally in micro-batches of "
                "{micro_batch} (optim.loss_micro_batch: the recipe's loss is the mean of their means)",
                processes=processes,
                global_batch=per_process * processes,
                micro_batch=loss_micro_batch,
            ),
            message(
                "settings.unequal-micro-batches.hint",
                "use a profile with fewer processes, or another optim.global_batch",
            ),
        )
    return accumulate


def split_recipe_batch(recipe: Recipe, profile: Profile) -> tuple[int, int]:
    """`split_global_batch` of a recipe on a profile."""
    return split_global_batch(
        recipe.optim.global_batch,
        profile.max_micro_batch(recipe.name),
        profile.processes,
        recipe.optim.loss_micro_batch,
    )


def _unequal_batch(global_batch: int, processes: int, shared_by_all: int) -> SettingsError:
    """The error of a batch that so many processes cannot share; a multiple of `shared_by_all` would do."""
    return SettingsError(
        message(
            "settings.unequal-batch",
            "a global batch of {global_batch} cannot be shared by {processes} processes equally",
            global_batch=global_batch,
            processes=processes,
        ),
        message(
            "settings.unequal-batch.hint",
            "use --set optim.global_batch={nearest}, or a profile with another number of processes",
            nearest=max(shared_by_all, global_batch - global_batch % shared_by_all),
        ),
    )


def _check_node_range(recipe: Recipe, profile: Profile) -> None:
    """See that every number of nodes of a range can share the global batch.

    Raises:
        SettingsError: one cannot; names a batch that all can share.
    """
    numbers = [nodes * profile.processes_per_node for nodes in profile.node_range]
    for nodes, processes in zip(profile.node_range, numbers, strict=True):
        if recipe.optim.global_batch % processes:
            raise _unequal_batch(recipe.optim.global_batch, processes, math.lcm(*numbers))
        split_recipe_batch(recipe, profile.on_nodes(nodes))


def split_for_processes(run: Run, processes: int) -> Run:
    """The run as so many processes do it: those that came, where the profile has a range of nodes.

    The same experiment: the global batch stays, each process gets another part of it.

    Args:
        run: as it was planned, for the most nodes.
        processes: in all; one of those that the profile allows.
    """
    if processes == run.profile.processes:
        return run
    profile = run.profile.on_nodes(processes // run.profile.processes_per_node)
    micro_batch, accumulate = split_recipe_batch(run.recipe, profile)
    return run.model_copy(update={"profile": profile, "micro_batch": micro_batch, "accumulate": accumulate})


def make_run(
    recipe: Recipe,
    profile: Profile,
    folder: Path,
    argv: list[str],
    origin: Mapping[str, str] | None = None,
    *,
    probe: bool = False,
    allow_left_out: bool = True,
) -> Run:
    """The run of a recipe on a profile, in a folder.

    Raises:
        SettingsError: the global batch cannot be shared by the processes equally.
    """
    _check_node_range(recipe, profile)
    micro_batch, accumulate = split_recipe_batch(recipe, profile)
    return Run(
        folder=folder.resolve(),
        recipe=recipe,
        profile=profile,
        micro_batch=micro_batch,
        accumulate=accumulate,
        probe=probe,
        allow_left_out=allow_left_out,
        argv=argv,
        origin=dict(origin or {}),
    )


def write_run(run: Run) -> Path:
    """Write `run.yaml` into the run's folder."""
    path = run.folder / RUN_FILE
    write_text(path, dump_yaml(run))
    return path


def read_run(path: Path) -> Run:
    """Read a `run.yaml`, those with old names of keys too; the run's folder is where the file lies now.

    Raises:
        SettingsError: it is missing or wrong.
    """
    document = read_yaml(path)
    document.values.pop("versions", None)  # stood there before each launch recorded its own
    run = build_settings(Run, _with_old_means(_with_new_names(document)))
    return run.model_copy(update={"folder": path.resolve().parent})  # it may have been moved or copied


def _with_old_means(document: SettingsDocument) -> SettingsDocument:
    """A run of a version that knew no `optim.loss_micro_batch` goes on as it began: with means of micro-batches."""
    recipe = document.values.get("recipe")
    optim = recipe.get("optim") if isinstance(recipe, dict) else None
    if not isinstance(recipe, dict) or not isinstance(optim, dict):
        return document
    if "loss_micro_batch" in optim or not _averaged_micro_batches(recipe):
        return document
    as_then = {**recipe, "optim": {**optim, "loss_micro_batch": document.values.get("micro_batch")}}
    origin = document.values.get("origin")
    origin = origin if isinstance(origin, dict) else {}
    # As if typed: no recipe's file says it.
    place = "--micro-batch or the profile, by a version that averaged over it"
    origin = {**origin, "recipe.optim.loss_micro_batch": place}
    return SettingsDocument({**document.values, "recipe": as_then, "origin": origin}, document.origin)


def _averaged_micro_batches(recipe: YamlMapping) -> bool:
    """Had this recipe, by those versions, another loss if its batch was cut otherwise?"""
    model = recipe.get("model")
    model = model if isinstance(model, dict) else {}
    match recipe.get("family"):
        case "beit3":
            return recipe.get("task") == "caption"
        case "vlm":
            return model.get("loss") == "tokens"
        case "fusion":
            weighted = model.get("class_weights", "none") != "none"
            of_batch = model.get("loss") == "focal_original" or model.get("scope") == "batch"
            return weighted or of_batch or bool(model.get("gradient_times_loss"))
    return False


def _with_new_names(document: SettingsDocument) -> SettingsDocument:
    recipe, origin = document.values.get("recipe"), document.values.get("origin")
    renamed = run_keys(recipe.get("family") if isinstance(recipe, dict) else None)
    document = with_new_names(document, renamed, warn=False)
    if not isinstance(origin, dict):
        return document
    new_origin = {  # its keys are dotted paths themselves
        dotted_path(renamed_path(tuple(key.split(".")), renamed)): place for key, place in origin.items()
    }
    return SettingsDocument({**document.values, "origin": new_origin}, document.origin)
