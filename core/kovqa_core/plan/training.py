"""`kovqa train` on paper: everything that can be checked before a process is started."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import DataError, KovqaError, SettingsError, WorkerError
from kovqa_core.evaluate.metrics import require_metric
from kovqa_core.files import make_folder, write_text
from kovqa_core.index.reader import open_index
from kovqa_core.launch.launchers import check_launcher
from kovqa_core.launch.launchers.protocol import JOB_SCRIPT, LaunchPlan
from kovqa_core.launch.machine_check import (
    check_machine,
    gpu_warnings,
    login_node_warnings,
    profile_of_this_machine,
)
from kovqa_core.launch.plan import plan_launch
from kovqa_core.messages import Message, message
from kovqa_core.models.config import read_model_settings
from kovqa_core.plan.batch_notes import batch_notes, require_loss_micro_batch
from kovqa_core.plan.micro_batch import AUTO_MICRO_BATCH, MemoryPlan, choose_micro_batch
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.runs.folder import RESULT_FILE, RUNS_FOLDER, RunResult, follow_pointer, read_result
from kovqa_core.runs.slurm_job import require_not_queued
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import DEFAULT_RECIPE, ResolvedSettings, resolve_settings
from kovqa_core.settings.run import RUN_FILE, Run, make_run, read_run, write_run
from kovqa_core.settings.strategy import check_strategy
from kovqa_core.settings.strict_yaml import KeyPath, SettingsDocument

if TYPE_CHECKING:
    from kovqa_core.runs.compare import RunDifference


@dataclass(frozen=True)
class PlannedTraining:
    """A training that was checked on paper; its `run.yaml` is written.

    Attributes:
        run: recipe and profile together.
        launch: what starts it.
        origin: where each setting came from.
        missing: what this machine lacks, and a dry run let pass.
        resumed_step: name of the step folder it goes on from.
        result: of a run that is finished, where there is nothing left to do.
        memory_plan: memory it needs, and what there is.
        differences: a rerun: what is not as it was then.
        warnings: what a person should know of this machine, where its profile was chosen by what is here.
        notes: what is worth knowing of its batches.
    """

    run: Run
    launch: LaunchPlan
    origin: Mapping[str, str]
    missing: list[Message]
    resumed_step: str | None
    result: RunResult | None
    memory_plan: MemoryPlan
    differences: Sequence[RunDifference] = ()
    warnings: Sequence[Message] = ()
    notes: Sequence[Message] = ()


MakeRun = Callable[[Profile, Path, list[str], Mapping[str, str]], Run]  # profile, folder, argv, origin
Check = Callable[[], object]  # raises a KovqaError


def plan_training(
    recipe: str,
    profile: str | None,
    *,
    sets: Sequence[str],
    flags: Mapping[str, str],
    folder: Path | None,
    resume: bool,
    dry_run: bool,
    micro_batch: str | None = None,
) -> PlannedTraining:
    """Resolve, check and write `run.yaml`.

    Args:
        recipe: name or path.
        profile: name or path; None: what this machine is.
        sets: `a.b=c` texts.
        flags: explicit flags, as recipe keys.
        folder: run folder; None: a new one below runs/ (with `resume`: the newest unfinished).
        resume: go on with what is in the folder.
        dry_run: let pass what this machine lacks, and say so.
        micro_batch: a number, "auto", or None: what the profile says.

    Raises:
        KovqaError: whatever cannot work, before anything is started.
    """
    folder = _choose_run_folder(folder, recipe, resume=resume)
    run_file = folder / RUN_FILE
    if not resume and (folder / "last").exists():
        raise _folder_in_use(
            folder, message("plan.folder-in-use.resume-hint", "add --resume to go on, or choose another -o")
        )
    requested = resolve_settings(recipe, profile or profile_of_this_machine(), sets, flags, os.environ)
    # Without run.yaml nothing was started here yet: --resume then begins.
    if resume and run_file.is_file():
        changes_recipe = bool(sets or flags or recipe != DEFAULT_RECIPE)
        requested = _resumed_settings(read_run(run_file), requested, profile, changes_recipe=changes_recipe)
    make = partial(make_run, requested.recipe, probe=micro_batch == AUTO_MICRO_BATCH)
    planned = _check_and_plan(requested, folder, make, dry_run=dry_run, micro_batch=micro_batch)
    # A profile that was named is what is wanted; where the machine chose, why it chose so must be seen.
    if profile:
        return planned
    warnings = [*gpu_warnings(), *login_node_warnings(planned.run.profile, os.environ)]
    return replace(planned, warnings=warnings)


def plan_rerun(earlier_folder: Path, folder: Path | None, *, force: bool, dry_run: bool) -> PlannedTraining:
    """A run like an earlier one: the same settings and the same split into micro-batches, in a new folder.

    Args:
        earlier_folder: of the earlier run.
        folder: of the new one; None: a new one below runs/.
        force: go on where the data is not the same as then.
        dry_run: let pass what this machine lacks, and say so.

    Raises:
        DataError: the index was written again from other data.
        KovqaError: whatever cannot work, before anything is started.
    """
    from kovqa_core.runs.compare import changed_since

    earlier = read_run(earlier_folder / RUN_FILE)
    folder = _choose_run_folder(folder, earlier.recipe.name, resume=False)
    if (folder / RUN_FILE).exists():
        raise _folder_in_use(
            folder, message("plan.folder-in-use.rerun-hint", "choose another folder with -o")
        )

    def make(profile: Profile, folder: Path, argv: list[str], origin: Mapping[str, str]) -> Run:
        return earlier.model_copy(update={"folder": folder.resolve(), "argv": argv})

    differences = changed_since(earlier_folder)
    data = next((each for each in differences if each.section == "data"), None)
    checks: list[Check] = []
    if data is not None and data.a is not None and not force:
        checks = [partial(_refuse_changed_data, earlier_folder, earlier, data)]
    settings = ResolvedSettings(earlier.recipe, earlier.profile, earlier.origin)
    planned = _check_and_plan(settings, folder, make, dry_run=dry_run, more_checks=checks)
    return replace(planned, differences=differences)


def _folder_in_use(folder: Path, hint: Message) -> SettingsError:
    return SettingsError(message("plan.folder-in-use", "{folder} already holds a run", folder=folder), hint)


def _refuse_changed_data(earlier_folder: Path, earlier: Run, data: RunDifference) -> None:
    raise DataError(
        message(
            "plan.other-data",
            "{index} holds other data than {run} learned from (fingerprint {then:.12} then, {now:.12} now)",
            index=earlier.recipe.data.index,
            run=earlier_folder.name,
            then=str(data.a),
            now=str(data.b),
        ),
        message(
            "plan.other-data.hint",
            "write the index again from the same data, or add --force to train on what is there now",
        ),
    )


def _check_and_plan(
    settings: ResolvedSettings,
    folder: Path,
    make: MakeRun,
    *,
    dry_run: bool,
    more_checks: Sequence[Check] = (),
    micro_batch: str | None = None,
) -> PlannedTraining:
    """Check the settings, write `run.yaml` (and a queue's script), plan the launch."""
    # First, because the checks of the machine are the launcher's own.
    check_launcher(settings.profile, settings.origin.get("profile.launcher", ""))
    require_not_queued(folder, os.environ)
    checks: list[Check] = [
        partial(check_machine, settings.profile),
        partial(check_strategy, settings.profile),
        *_input_checks(settings),
        *more_checks,
    ]
    missing = _run_checks(checks, dry_run=dry_run)
    profile, memory_plan = choose_micro_batch(settings.recipe, settings.profile, micro_batch)
    # Only now is anything written: a training that is refused leaves no folder behind.
    run = make(profile, make_folder(folder), ["kovqa", *sys.argv[1:]], settings.origin)
    launch = plan_launch(run, sys.executable, usable_cpu_count(), environ=os.environ)
    write_run(run)
    if launch.script is not None:
        write_text(run.folder / JOB_SCRIPT, launch.script)
    last = follow_pointer(folder, "last")
    return PlannedTraining(
        run=run,
        launch=launch,
        origin=settings.origin,
        missing=missing,
        resumed_step=last.name if last else None,
        result=read_result(folder),
        memory_plan=memory_plan,
        notes=batch_notes(run),
    )


def _run_checks(checks: Sequence[Check], *, dry_run: bool) -> list[Message]:
    """Run all checks; what a dry run lets pass: whatever another machine may have.

    Raises:
        SettingsError: nothing helps but other settings.
        KovqaError: something is missing here, and this is not a dry run.
    """
    missing: list[Message] = []
    for check in checks:
        try:
            check()
        except SettingsError:
            raise
        except KovqaError as error:
            if not dry_run:
                raise
            missing.append(
                message("plan.missing-here", "{problem} → {hint}", problem=error.message, hint=error.hint)
            )
    return list(dict.fromkeys(missing))  # two checks may lack one file


def _choose_run_folder(folder: Path | None, recipe: str, *, resume: bool) -> Path:
    """The folder that was named; else a new one, or the newest that is not finished."""
    if folder is not None:
        return folder
    if not resume:
        return RUNS_FOLDER / f"{Path(recipe).stem}-{time.strftime('%m%d-%H%M%S')}"
    unfinished = [
        path for path in RUNS_FOLDER.glob(f"*/{RUN_FILE}") if not (path.parent / RESULT_FILE).exists()
    ]
    if not unfinished:
        raise SettingsError(
            message("plan.no-unfinished-run", "no unfinished run in {folder}/", folder=RUNS_FOLDER),
            message("plan.no-unfinished-run.hint", "name one with -o"),
        )
    # run.yaml is written when a run begins or is resumed: the newest is the one last worked on.
    return max(unfinished, key=lambda path: path.stat().st_mtime).parent


def _resumed_settings(
    stored: Run, requested: ResolvedSettings, profile: str | None, *, changes_recipe: bool
) -> ResolvedSettings:
    """A resumed run keeps its recipe; the machine may be another.

    Args:
        stored: the run as it was started.
        requested: what was typed now.
        profile: the one that was typed; None: the stored one stays.
        changes_recipe: was anything typed that could make the recipe another?

    Raises:
        SettingsError: the recipe is another than the stored one.
    """
    if changes_recipe and requested.recipe != stored.recipe:
        difference = next(_changed_keys(stored.recipe.model_dump(), requested.recipe.model_dump()))
        raise SettingsError(
            message(
                "plan.other-recipe",
                "{folder} was started with another recipe: {difference} differs",
                folder=stored.folder,
                difference=difference,
            ),
            message("plan.other-recipe.hint", "resume without changes, or use a new -o"),
        )
    if profile is None:
        return ResolvedSettings(stored.recipe, stored.profile, stored.origin)
    origin = {key: place for key, place in stored.origin.items() if not key.startswith("profile.")}
    # The profile is the one of now, and so is where its values came from.
    origin |= {key: place for key, place in requested.origin.items() if key.startswith("profile.")}
    return ResolvedSettings(stored.recipe, requested.profile, origin)


def _changed_keys(
    then: Mapping[str, object], now: Mapping[str, object], prefix: str = ""
) -> Iterator[Message]:
    for key in sorted({*then, *now}):
        old, new = then.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changed_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            yield message(
                "plan.changed-key", "{key} ({old!r} then, {new!r} now)", key=prefix + key, old=old, new=new
            )


def _input_checks(settings: ResolvedSettings) -> list[Check]:
    """Checks of index, images, tokenizer and weights: done now, on paper, not later on a GPU.

    Raises:
        SettingsError: at once, where the settings themselves are wrong.
    """
    recipe = settings.recipe
    origin: dict[KeyPath, str] = {
        tuple(key.split(".")[1:]): place
        for key, place in settings.origin.items()
        if key.startswith("recipe.")
    }
    document = SettingsDocument(recipe.model_dump(mode="json"), {**origin, (): f"recipe {recipe.name}"})
    config = read_model_settings(document)
    require_metric(recipe.eval.metric, recipe.task)
    require_loss_micro_batch(recipe, config)
    if recipe.data.index is None:
        raise SettingsError(
            message("plan.no-index", "no index named"),
            message("plan.no-index.hint", "give one: --data DIR (write it with kovqa index)"),
        )
    images = Path(recipe.data.images) if recipe.data.images else None
    if images and not images.is_dir() and settings.profile.slurm.node_setup:
        images = None  # on the nodes' own disks, once node_setup has run there
    return [
        partial(_check_index, Path(recipe.data.index), images, recipe.task),
        *config.required_files(),
    ]


def _check_index(folder: Path, images: Path | None, task: str) -> None:
    index = open_index(folder, images)
    if task == "vqa":
        index.answers()


def finished_result(run: Run) -> RunResult:
    """The result of a run that has just ended.

    Raises:
        WorkerError: it left none.
    """
    result = read_result(run.folder)
    if result is None:
        raise WorkerError(
            message("plan.no-result", "the run in {folder} ended without a result", folder=run.folder),
            message("plan.no-result.hint", "see {folder}/logs", folder=run.folder),
        )
    return result
