"""`kovqa train` on paper: everything that can be checked before a process is started."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.errors import DataError, KovqaError, SettingsError, WorkerError
from kovqa_core.evaluate.metrics import require_metric
from kovqa_core.files import make_folder, write_text
from kovqa_core.index.reader import open_index
from kovqa_core.launch.launchers import check_launcher
from kovqa_core.launch.launchers.protocol import JOB_SCRIPT, LaunchPlan
from kovqa_core.launch.machine_check import check_machine, profile_of_this_machine
from kovqa_core.launch.plan import plan_launch
from kovqa_core.messages import message
from kovqa_core.models.config import read_model_settings
from kovqa_core.plan.micro_batch import AUTO_MICRO_BATCH, MemoryPlan, choose_micro_batch
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.runs.folder import RESULT_FILE, RUNS_FOLDER, RunResult, follow_pointer, read_result
from kovqa_core.settings import strategy
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import ResolvedSettings, resolve_settings
from kovqa_core.settings.run import RUN_FILE, Run, make_run, read_run, write_run
from kovqa_core.settings.strict_yaml import SettingsDocument

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
    """

    run: Run
    launch: LaunchPlan
    origin: Mapping[str, str]
    missing: list[str]
    resumed_step: str | None
    result: RunResult | None
    memory_plan: MemoryPlan
    differences: Sequence[RunDifference] = ()


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
    folder = _choose_run_folder(folder, recipe, resume)
    stored = folder / RUN_FILE
    goes_on = resume and stored.is_file()
    if not resume and (folder / "last").exists():
        raise SettingsError(f"{folder} already holds a run", "add --resume to go on, or choose another -o")
    asked = resolve_settings(recipe, profile or profile_of_this_machine(), sets, flags, os.environ)
    if goes_on:
        asked = _resumed_settings(
            read_run(stored), asked, bool(sets or flags or recipe != "kobeit3"), profile
        )
    run_in = partial(make_run, asked.recipe, probe=micro_batch == AUTO_MICRO_BATCH)
    return _check_and_plan(asked, folder, run_in, dry_run, micro_batch=micro_batch)


def plan_rerun(before: Path, folder: Path | None, *, force: bool, dry_run: bool) -> PlannedTraining:
    """A run like one that was: the same settings and the same cut into micro-batches, in a new folder.

    Args:
        before: folder of the run.
        folder: of the new one; None: a new one below runs/.
        force: go on where the data is not the one of then.
        dry_run: let pass what this machine lacks, and say so.

    Raises:
        DataError: the index was written anew from other data.
        KovqaError: whatever cannot work, before anything is started.
    """
    from kovqa_core.runs.compare import changed_since

    old = read_run(before / RUN_FILE)
    folder = _choose_run_folder(folder, old.recipe.name, False)
    if (folder / RUN_FILE).exists():
        raise SettingsError(f"{folder} already holds a run", "choose another folder with -o")

    def run_in(profile: Profile, folder: Path, argv: list[str], origin: Mapping[str, str]) -> Run:
        return old.model_copy(update={"folder": folder.resolve(), "argv": argv})

    differs = changed_since(before)
    data = next((found for found in differs if found.section == "data"), None)
    checks = (
        [] if force or data is None or data.a is None else [partial(_refuse_changed_data, before, old, data)]
    )
    planned = _check_and_plan(
        ResolvedSettings(old.recipe, old.profile, old.origin), folder, run_in, dry_run, checks
    )
    return replace(planned, differences=differs)


def _refuse_changed_data(before: Path, run: Run, data: RunDifference) -> None:
    raise DataError(
        message(
            "plan.other-data",
            "{index} holds other data than {run} learned from (fingerprint {then:.12} then, {now:.12} now)",
            index=run.recipe.data.index,
            run=before.name,
            then=str(data.a),
            now=str(data.b),
        ),
        message(
            "plan.other-data.hint",
            "write the index again from the same data, or add --force to train on what is there now",
        ),
    )


def _check_and_plan(
    asked: ResolvedSettings,
    folder: Path,
    run_in: Callable[..., Run],
    dry_run: bool,
    checks: Sequence[Callable[[], object]] = (),
    micro_batch: str | None = None,
) -> PlannedTraining:
    """Check what was asked, write `run.yaml`."""
    missing: list[str] = []
    every: list[Callable[[], object]] = [
        partial(check_launcher, asked.profile, asked.origin.get("profile.launcher", "")),
        partial(check_machine, asked.profile),
        partial(strategy.check_strategy, asked.profile),
        *_input_checks(asked),
        *checks,
    ]
    for check in every:
        try:
            check()
        except KovqaError as error:
            if not dry_run or isinstance(error, SettingsError):
                raise
            missing.append(f"{error.message} → {error.hint}")
    profile, memory = choose_micro_batch(asked.recipe, asked.profile, micro_batch)
    run = run_in(profile, make_folder(folder), ["kovqa", *sys.argv[1:]], asked.origin)
    launch = plan_launch(run, sys.executable, usable_cpu_count())
    write_run(run)
    if launch.script is not None:
        write_text(run.folder / JOB_SCRIPT, launch.script)
    last = follow_pointer(folder, "last")
    return PlannedTraining(
        run,
        launch,
        asked.origin,
        list(dict.fromkeys(missing)),  # two checks may lack one file
        last.name if last else None,
        read_result(folder),
        memory,
    )


def _choose_run_folder(folder: Path | None, recipe: str, resume: bool) -> Path:
    if folder is not None:
        return folder
    if not resume:
        return RUNS_FOLDER / f"{Path(recipe).stem}-{time.strftime('%m%d-%H%M%S')}"
    unfinished = [
        p.parent for p in RUNS_FOLDER.glob(f"*/{RUN_FILE}") if not (p.parent / RESULT_FILE).exists()
    ]
    if not unfinished:
        raise SettingsError(f"no unfinished run in {RUNS_FOLDER}/", "name one with -o")
    return max(unfinished, key=lambda path: (path / RUN_FILE).stat().st_mtime)


def _resumed_settings(
    before: Run, asked: ResolvedSettings, explicit: bool, profile: str | None
) -> ResolvedSettings:
    """A resumed run keeps its recipe; the machine may be another."""
    if explicit and asked.recipe != before.recipe:
        key = next(_changed_keys(before.recipe.model_dump(), asked.recipe.model_dump()))
        raise SettingsError(
            f"{before.folder} was begun with another recipe: {key} differs",
            "resume without changes, or use a new -o",
        )
    kept = {
        key: place for key, place in before.origin.items() if not (profile and key.startswith("profile."))
    }
    new = {key: place for key, place in asked.origin.items() if profile and key.startswith("profile.")}
    return ResolvedSettings(before.recipe, asked.profile if profile else before.profile, {**kept, **new})


def _changed_keys(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> Any:
    for key in sorted({*a, *b}):
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _changed_keys(one, other, f"{path}{key}.")
        elif one != other:
            yield f"{path}{key} ({one!r} then, {other!r} now)"


def _input_checks(asked: ResolvedSettings) -> list[Callable[[], object]]:
    """Checks of index, pictures, tokenizer and weights: looked for now, on paper, not on a GPU.

    Raises:
        SettingsError: at once, where the settings themselves are wrong.
    """
    recipe = asked.recipe
    places: dict[tuple[str | int, ...], str] = {
        tuple(key.split(".")[1:]): place for key, place in asked.origin.items() if key.startswith("recipe.")
    }
    document = SettingsDocument(recipe.model_dump(mode="json"), {**places, (): f"recipe {recipe.name}"})
    config = read_model_settings(document)
    require_metric(recipe.eval.metric, recipe.task)
    if recipe.data.index is None:
        raise SettingsError("no index named", "give one: --data DIR (write it with kovqa index)")
    images = Path(recipe.data.images) if recipe.data.images else None
    return [
        partial(_check_index, Path(recipe.data.index), images, recipe.task),
        *config.required_files(),
    ]


def _check_index(folder: Path, images: Path | None, task: str) -> None:
    index = open_index(folder, images)
    if task == "vqa":
        index.answers()


def finished_result(run: Run) -> RunResult:
    """The result of a run that has just ended."""
    found = read_result(run.folder)
    if found is None:
        raise WorkerError(
            message("plan.no-result", "the run in {folder} ended without a result", folder=run.folder),
            message("plan.no-result.hint", "see {folder}/logs", folder=run.folder),
        )
    return found
