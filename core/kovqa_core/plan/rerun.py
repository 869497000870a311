"""`kovqa runs rerun` on paper: a run like an earlier one, and what is not as it was then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from kovqa_core.errors import DataError, KovqaError
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.plan.input_checks import stored_consent_notes, without_stored_consent
from kovqa_core.plan.run_folder import (
    choose_run_folder,
    folder_in_use_error,
    folder_state,
    require_free_folder,
)
from kovqa_core.plan.training import Check, PlannedTraining, check_and_plan, with_foreign_settings
from kovqa_core.runs.compare import RunDifference, batch_splits, batch_splits_text, changed_since
from kovqa_core.runs.consent import foreign_code_settings, require_trusted
from kovqa_core.runs.folder import RESULT_FILE, RUNS_FOLDER, is_run_active, was_launched
from kovqa_core.settings.code_consent import TRUST_FLAG, TRUST_SETTING, set_code_consent
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import ResolvedSettings
from kovqa_core.settings.run import RUN_FILE, Run, read_run

_RERUN_COMMAND = ["runs", "rerun"]


def plan_rerun(
    earlier_folder: Path,
    folder: Path | None,
    *,
    force: bool,
    dry_run: bool,
    trust_run: bool = False,
    trust_code: bool = False,
) -> PlannedTraining:
    """A run like an earlier one: the same settings and the same split into micro-batches, in a new folder.

    What was changed on the way changes at the same steps.

    Args:
        earlier_folder: of the earlier run.
        folder: of the new one; None: a new one below runs/.
        force: go on where the data is not the same as then.
        dry_run: let pass what this machine lacks, and say so.
        trust_run: run what the settings of somebody else's run say (`runs/consent.py`).
        trust_code: may Python code of the base model run?

    Raises:
        DataError: the index was written again from other data.
        KovqaError: whatever cannot work, before anything is started.
    """
    stored = read_run(earlier_folder / RUN_FILE)
    earlier = without_stored_consent(stored)
    foreign = foreign_code_settings(earlier, earlier.profile, typed_profile=False)
    require_trusted(earlier, foreign, trust_run=trust_run or dry_run, other_profile=False)
    named_folder, folder = folder, choose_run_folder(folder, earlier.recipe.name, resume=False)
    if was_launched(folder):  # where run.yaml stands alone, nothing has begun
        raise folder_in_use_error(folder, _in_use_hint(folder, earlier))
    require_free_folder(folder, joint=False)

    def make(profile: Profile, folder: Path, argv: list[str], origin: Mapping[str, str]) -> Run:
        return earlier.model_copy(update={"folder": folder.resolve(), "argv": argv, "id": ""})

    differences = changed_since(earlier_folder)
    data = next((each for each in differences if each.section == "data"), None)
    unfinished = _unfinished_reruns(earlier) if named_folder is None else []
    checks: list[Check] = []
    if data is not None and data.a is not None and not force:
        checks = [partial(_refuse_changed_data, earlier_folder, earlier, data)]
    recipe = set_code_consent(earlier.recipe, trust_code=trust_code)
    origin = {**earlier.origin, **({f"recipe.{TRUST_SETTING}": TRUST_FLAG} if trust_code else {})}
    settings = ResolvedSettings(recipe, earlier.profile, origin)
    planned = check_and_plan(
        settings, folder, folder_state(folder), make, dry_run=dry_run, more_checks=checks
    )
    planned = replace(
        planned,
        differences=differences,
        is_new_folder=named_folder is None,
        warnings=[
            *planned.warnings,
            *stored_consent_notes(stored, settings),
            *_other_splits(earlier_folder, earlier),
            *unfinished,
        ],
        changes=earlier.changes,
        trusted_run=earlier if trust_run else None,
    )
    return planned if trust_run else with_foreign_settings(planned, foreign)


def _in_use_hint(folder: Path, earlier: Run) -> Message:
    """What to do where the folder for a rerun holds a run: most likely this one, which was killed."""
    if not _is_unfinished_rerun(folder, earlier):
        return message("plan.folder-in-use.rerun-hint", "choose another folder with -o")
    return message(
        "plan.folder-in-use.rerun-resume-hint",
        "it is this rerun, not finished: go on with kovqa train --resume -o {folder}, or choose another folder with -o",
        folder=shell_quote(folder),
    )


def _unfinished_reruns(earlier: Run) -> list[Message]:
    """That the same run was done again before, and stopped: this one begins at step 0."""
    return [
        message(
            "plan.unfinished-rerun",
            "{folder} is a rerun of {run}, too, and not finished; to go on with that one: kovqa train --resume -o {folder}",
            run=earlier.folder.name,
            folder=shell_quote(folder),
        )
        for folder in sorted(path.parent for path in RUNS_FOLDER.glob(f"*/{RUN_FILE}"))
        if was_launched(folder) and _is_unfinished_rerun(folder, earlier)
    ]


def _is_unfinished_rerun(folder: Path, earlier: Run) -> bool:
    """Is there a rerun of a run, begun and not finished, which nobody is training?"""
    try:
        run = read_run(folder / RUN_FILE)
    except KovqaError:
        return False
    is_rerun = run.argv[1:3] == _RERUN_COMMAND and run.recipe == earlier.recipe
    is_open = not (folder / RESULT_FILE).exists() and not is_run_active(folder)
    return is_rerun and is_open and run.folder != earlier.folder


def _other_splits(earlier_folder: Path, earlier: Run) -> Iterator[Message]:
    """That a rerun splits the batch by the run's last launch, and its other launches did otherwise."""
    splits = batch_splits(earlier_folder)
    if len(splits) > 1:
        yield message(
            "plan.other-splits",
            "{run} did not split its batch alike in all launches ({splits}); this one has {processes} × "
            "{micro_batch} × {accumulate} throughout, so results are not the same to the bit",
            run=earlier_folder.name,
            splits=batch_splits_text(splits),
            processes=earlier.profile.processes,
            micro_batch=earlier.micro_batch,
            accumulate=earlier.accumulate,
        )


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
