"""`kovqa train` on paper: everything that can be checked before a process is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import KovqaError, SettingsError, WorkerError
from kovqa_core.index.reader import open_training_index
from kovqa_core.launch.launchers import LAUNCHERS, check_launcher
from kovqa_core.launch.launchers.protocol import LaunchPlan
from kovqa_core.launch.machine_check import (
    check_training_machine,
    gpu_warnings,
    login_node_warnings,
    other_gpu_warnings,
    profile_of_this_machine,
)
from kovqa_core.launch.plan import plan_launch
from kovqa_core.machine.detect_profile import load_profile_document
from kovqa_core.messages import Message, message
from kovqa_core.models import FAMILIES
from kovqa_core.models.config import PinnedSettings, recipe_model_config
from kovqa_core.plan.batch_notes import (
    batch_notes,
    count_training_rows,
    micro_batch_warnings,
    require_learnable_choices,
)
from kovqa_core.plan.input_checks import (
    input_checks,
    left_to_node_setup,
    replaced_notes,
    require_falling_rate,
    require_packages,
    require_typed_code_consent,
    stored_consent_notes,
    without_stored_consent,
)
from kovqa_core.plan.memory_plan import MemoryPlan
from kovqa_core.plan.micro_batch import (
    AUTO_MICRO_BATCH,
    choose_micro_batch,
    keep_recorded_micro_batch,
)
from kovqa_core.plan.resumed_run import TypedSettings, resume_settings
from kovqa_core.plan.run_folder import (
    FolderState,
    choose_run_folder,
    folder_state,
    require_free_folder,
    unknown_run_error,
)
from kovqa_core.plan.run_length import RunLength, count_run_length
from kovqa_core.plugins import clash_warnings
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.runs.consent import foreign_code_settings, foreign_run_warning, require_trusted
from kovqa_core.runs.folder import (
    RunResult,
    follow_pointer,
    read_result,
)
from kovqa_core.runs.manifest import last_checkpoint_step, require_same_data
from kovqa_core.runs.resume_point import find_resume_point
from kovqa_core.runs.slurm_job import require_not_queued
from kovqa_core.runs.step_folders import step_number
from kovqa_core.settings.code_consent import set_code_consent, trusts_code
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import (
    DEFAULT_RECIPE,
    FlagValue,
    ResolvedSettings,
    load_document,
    override_documents,
)
from kovqa_core.settings.run import RUN_FILE, RecipeChange, Run, make_run, read_run, setting_origin
from kovqa_core.settings.strategy import check_strategy
from kovqa_core.tracking.trackers import check_trackers, tracking_notes

if TYPE_CHECKING:
    from kovqa_core.runs.compare import RunDifference


@dataclass(frozen=True)
class PlannedTraining:
    """A training that was checked on paper; nothing is written yet (`plan/claim.py` does that).

    Attributes:
        run: recipe and profile together.
        launch: what starts it.
        origin: where each setting came from.
        missing: what this machine lacks, and a dry run let pass.
        resumed_step: name of the step folder it goes on from.
        result: of a run that is finished, where there is nothing left to do.
        memory_plan: memory it needs, and what there is.
        state: what its folder held when it was planned.
        length: steps, hours, room on the disk and energy that it takes.
        is_new_folder: nobody named the folder: another name will do, too.
        differences: a rerun: what is not as it was then.
        warnings: what a person should know of this machine, where its profile was chosen by what is here.
        notes: what is worth knowing of its batches.
        changes: settings that change from this resume on; of a rerun, those that changed on the way.
        is_resume: it goes on, if there is anything to go on from.
        foreign: code settings of somebody else's run.yaml, which a dry run shows and does not need to trust.
        trusted_run: the run that this one is made from, which was trusted in this command.
        trust_code: was this command told that code of the base model may run? Neither `run` nor any file keeps it.
    """

    run: Run
    launch: LaunchPlan
    origin: Mapping[str, str]
    missing: list[Message]
    resumed_step: str | None
    result: RunResult | None
    memory_plan: MemoryPlan
    state: FolderState
    length: RunLength
    is_new_folder: bool = False
    differences: Sequence[RunDifference] = ()
    warnings: Sequence[Message] = ()
    notes: Sequence[Message] = ()
    changes: Sequence[RecipeChange] = ()
    is_resume: bool = False
    foreign: Mapping[str, object] = field(default_factory=dict)
    trusted_run: Run | None = None
    trust_code: bool = False


MakeRun = Callable[[Profile, Path, list[str], Mapping[str, str]], Run]  # profile, folder, argv, origin
Check = Callable[[], object]  # raises a KovqaError


def plan_training(
    recipe: str | None,
    profile: str | None,
    *,
    sets: Sequence[str],
    flags: Mapping[str, FlagValue],
    folder: Path | None,
    resume: bool,
    dry_run: bool,
    micro_batch: str | None = None,
    changes: Sequence[str] = (),
    allow_left_out: bool = False,
    trust_run: bool = False,
) -> PlannedTraining:
    """Resolve and check. Nothing is written.

    Args:
        recipe: name or path; None: the default one, or that of the resumed run.
        profile: name or path; None: what this machine is, or that of the resumed run.
        sets: `a.b=c` texts.
        flags: explicit flags, as recipe keys.
        folder: run folder; None: a new one below runs/ (with `resume`: the newest unfinished).
        resume: go on with what is in the folder.
        dry_run: let pass what this machine lacks, and say so.
        micro_batch: a number, "auto", or None: what the profile says.
        changes: `a.b=c` texts that change the resumed run's recipe from here on.
        allow_left_out: train on though over 10 % of the rows are left out.
        trust_run: run what the settings of somebody else's run say (`runs/consent.py`).

    Raises:
        KovqaError: whatever cannot work, before anything is started.
    """
    named_folder, folder = folder, choose_run_folder(folder, recipe or DEFAULT_RECIPE, resume=resume)
    state = folder_state(folder)
    if resume and state.run is not None:
        typed = TypedSettings(recipe, profile, sets, flags, changes)
        return _plan_resumed(
            folder, state, typed,
            dry_run=dry_run, micro_batch=micro_batch, allow_left_out=allow_left_out, trust_run=trust_run,
        )  # fmt: skip
    # Without run.yaml nothing was started here yet: --resume then begins, if it is said what.
    if resume and (recipe is None or changes):
        raise unknown_run_error(folder)
    recipe_document = load_document("recipes", recipe or DEFAULT_RECIPE)
    profile_document = load_profile_document(profile or profile_of_this_machine())
    settings = override_documents(recipe_document, profile_document, sets, flags, os.environ)
    require_falling_rate(settings.recipe, settings.origin)
    require_typed_code_consent(settings)
    require_free_folder(folder, joint=bool(settings.profile.rendezvous))
    make = partial(
        make_run, settings.recipe, probe=micro_batch == AUTO_MICRO_BATCH, allow_left_out=allow_left_out
    )
    planned = check_and_plan(settings, folder, state, make, dry_run=dry_run, micro_batch=micro_batch)
    # A profile that was named is what is wanted; where the machine chose, why it chose so must be seen.
    chosen_here = not profile or settings.profile.from_machine
    machine_warnings = (
        [*gpu_warnings(), *login_node_warnings(planned.run.profile, os.environ)] if chosen_here else []
    )
    warnings = [*machine_warnings, *planned.warnings]
    is_new_folder = named_folder is None
    return replace(planned, is_new_folder=is_new_folder, is_resume=resume, warnings=warnings)


def _plan_resumed(
    folder: Path,
    state: FolderState,
    typed: TypedSettings,
    *,
    dry_run: bool,
    micro_batch: str | None,
    allow_left_out: bool,
    trust_run: bool,
) -> PlannedTraining:
    """Plan how a run goes on; one that is finished goes on only if it was given more steps."""
    stored = read_run(folder / RUN_FILE)
    run = without_stored_consent(stored)
    settings, changes = resume_settings(run, folder, typed)
    settings = keep_recorded_micro_batch(settings, run)
    new_changes = [change for change in changes if change not in run.changes]
    foreign: Mapping[str, object] = {}
    notes: tuple[Message, ...] = ()
    if new_changes or not state.finished:
        foreign = foreign_code_settings(run, settings.profile, typed_profile=typed.profile is not None)
        require_trusted(run, foreign, trust_run=trust_run or dry_run, other_profile=True)
        # Not one of the checks, which a dry run lets pass: the run's folder is here, whatever else is not.
        # Checksums are the workers' business: they take the time of reading all.
        notes = find_resume_point(folder, checksums=False).notes
    make_resumed = partial(
        make_run,
        settings.recipe,
        probe=micro_batch == AUTO_MICRO_BATCH,
        allow_left_out=allow_left_out or run.allow_left_out,  # what was allowed once stays so
    )

    def make(profile: Profile, folder: Path, argv: list[str], origin: Mapping[str, str]) -> Run:
        return make_resumed(profile, folder, argv, origin).model_copy(
            update={"changes": changes, "id": run.id}
        )

    checks: list[Check] = [partial(require_same_data, run.model_copy(update={"recipe": settings.recipe}))]
    if new_changes:
        checks.append(partial(_require_more_steps, folder, settings.recipe))
    planned = check_and_plan(
        settings, folder, state, make, dry_run=dry_run, micro_batch=micro_batch, more_checks=checks
    )
    result = None if new_changes else planned.result
    warnings = [*notes, *stored_consent_notes(stored, settings), *planned.warnings]
    planned = replace(planned, is_resume=True, changes=new_changes, result=result, warnings=warnings)
    return planned if trust_run else with_foreign_settings(planned, foreign)


def with_foreign_settings(planned: PlannedTraining, foreign: Mapping[str, object]) -> PlannedTraining:
    """A plan that is shown, though somebody else's settings in it are not trusted; says so where there are any."""
    warnings = [*planned.warnings, *([foreign_run_warning(foreign)] if foreign else [])]
    return replace(planned, foreign=foreign, warnings=warnings)


def check_and_plan(
    settings: ResolvedSettings,
    folder: Path,
    state: FolderState,
    make: MakeRun,
    *,
    dry_run: bool,
    more_checks: Sequence[Check] = (),
    micro_batch: str | None = None,
) -> PlannedTraining:
    """Check the settings, plan the launch."""
    # First, because the checks of the machine are the launcher's own.
    check_launcher(settings.profile, settings.origin.get("profile.launcher", ""))
    track = settings.recipe.train.track
    # Else the workers have a Python of their own, and say themselves what it lacks.
    installed_here = not (settings.profile.python or settings.profile.command_prefix)
    if not dry_run:  # which writes nothing into such a folder
        require_not_queued(folder, os.environ)
    checks: list[Check] = [
        partial(check_training_machine, settings.profile, dry_run=dry_run),
        *([partial(require_packages, settings.recipe.family, track)] if installed_here else []),
        partial(check_strategy, settings.profile),
        partial(
            check_trackers,
            track,
            setting_origin(settings.origin, "recipe.train.track") or "train.track",
            installed_here=installed_here,
        ),
        *input_checks(settings),
        *more_checks,
    ]
    missing = [*_run_checks(checks, dry_run=dry_run), *left_to_node_setup(settings)]
    profile, memory_plan = choose_micro_batch(settings.recipe, settings.profile, micro_batch)
    origin = dict(settings.origin)
    key = f"profile.micro_batch.{settings.recipe.name}"
    if micro_batch is not None:
        origin[key] = f"--micro-batch {micro_batch}"
    elif memory_plan.number_from != "stated":
        origin[key] = memory_plan.number_from
    if settings.profile.activation_checkpointing == "auto":
        origin["profile.activation_checkpointing"] = "auto"
    run = make(profile, folder, ["kovqa", *sys.argv[1:]], origin)
    trust_code = trusts_code(settings.recipe)
    run = run.model_copy(update={"recipe": set_code_consent(run.recipe, trust_code=False)})
    pinned = PinnedSettings() if missing else recipe_model_config(run.recipe).pinned_settings()
    if pinned.settings:
        model = {**run.recipe.model, **pinned.settings}
        run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"model": model})})
    if not missing:  # the index is here
        missing = _run_checks([partial(require_learnable_choices, run)], dry_run=dry_run)
    last = follow_pointer(folder, "last")
    return PlannedTraining(
        run=run,
        launch=plan_launch(
            run, sys.executable, usable_cpu_count(), environ=os.environ, trust_code=trust_code
        ),
        origin=origin,
        missing=missing,
        resumed_step=last.name if last else None,
        result=read_result(folder),
        memory_plan=memory_plan,
        length=count_run_length(run, memory_plan.step, done=step_number(last.name) if last else 0),
        warnings=[
            *pinned.notes,
            *micro_batch_warnings(run),
            *other_gpu_warnings(run.profile),
            *clash_warnings("family", FAMILIES.keys() & {run.recipe.family}),
            *clash_warnings("launcher", LAUNCHERS.keys() & {run.profile.launcher}),
        ],
        notes=[
            *replaced_notes(settings),
            *batch_notes(run),
            *tracking_notes(track, folder, {**os.environ, **profile.env}),
        ],
        state=state,
        trust_code=trust_code,
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


def _require_more_steps(folder: Path, recipe: Recipe) -> None:
    """See that a changed run ends behind the step it has reached; only an epoch's rows can tell.

    Raises:
        SettingsError: it would end before.
    """
    rows = count_training_rows(open_training_index(recipe.data), recipe.data)
    total = recipe.optim.count_steps(rows)
    step = last_checkpoint_step(folder)
    if total <= step:
        raise SettingsError(
            message(
                "plan.too-short",
                "{folder} has done {step} steps already, and would be over after {total}",
                folder=folder,
                step=step,
                total=total,
            ),
            message("plan.too-short.hint", "give it more: --change optim.steps=N, or optim.epochs"),
        )


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
