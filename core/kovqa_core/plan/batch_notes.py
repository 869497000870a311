"""What a plan says of a run's batches: rows of an epoch that fill none, and means that the recipe fixes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.left_out import are_too_many, too_many_left_out
from kovqa_core.errors import KovqaError, SettingsError, did_you_mean, unknown_name_error
from kovqa_core.index.reader import IndexFolder, filter_question_types, open_training_index
from kovqa_core.messages import Message, message
from kovqa_core.models.config import FamilyConfig, recipe_model_config
from kovqa_core.models.unread_columns import describe_unread_columns
from kovqa_core.paths import settings_files
from kovqa_core.settings.recipe import DataSettings, Recipe
from kovqa_core.settings.resolve import is_typed
from kovqa_core.settings.run import Run, setting_origin


def batch_notes(run: Run) -> list[Message]:
    """Lines about the batches of a run, for people who read its plan."""
    return [
        *_loss_micro_batch_note(run),
        *_other_micro_batch_note(run),
        *_epoch_rest_note(run.recipe),
        *_unread_columns_notes(run.recipe),
        *recipe_model_config(run.recipe).plan_notes(),
    ]


def micro_batch_warnings(run: Run) -> list[Message]:
    """Names in `profile.micro_batch` that are not recipes known here: a slip, or a recipe from a file.

    Raises:
        SettingsError: one that can only mean `default`.
    """
    known = {*settings_files("recipes"), run.recipe.name, "default"}
    warnings = []
    for name in sorted(run.profile.micro_batch.keys() - known):
        place = setting_origin(run.origin, f"profile.micro_batch.{name}") or message(
            "plan.profile-place", "profile {name}", name=run.profile.name
        )
        problem = message(
            "plan.micro-batch-of-no-recipe",
            "{place}: profile.micro_batch has '{name}', which is not a recipe known here",
            place=place,
            name=name,
        )
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        if near == ["default"]:
            raise unknown_name_error(problem, name, known)
        if near:
            problem = did_you_mean(problem, near)
        warnings.append(problem)
    return warnings


def _other_micro_batch_note(run: Run) -> Iterator[Message]:
    """That a micro-batch is not the one that was typed; a profile's file says the most, not the one wanted."""
    recipe, micro_batches = run.recipe, run.profile.micro_batch
    typed = run.profile.max_micro_batch(recipe.name)
    key = recipe.name if recipe.name in micro_batches else "default"
    if typed == run.micro_batch or recipe.optim.loss_micro_batch is not None:
        return
    if is_typed(setting_origin(run.origin, f"profile.micro_batch.{key}")):
        yield message(
            "plan.other-micro-batch",
            "micro-batch {micro_batch}, not {typed}: it must divide the {rows} examples of a batch that one process "
            "gets",
            micro_batch=run.micro_batch,
            typed=typed,
            rows=run.micro_batch * run.accumulate,
        )


def _loss_micro_batch_note(run: Run) -> Iterator[Message]:
    if run.recipe.optim.loss_micro_batch is None:
        return
    note = message(
        "plan.loss-micro-batch",
        "the recipe's loss is the mean of means over micro-batches of {micro_batch}, which no profile changes "
        "(optim.loss_micro_batch)",
        micro_batch=run.micro_batch,
    )
    holds = run.profile.max_micro_batch(run.recipe.name)
    if holds >= run.micro_batch:
        yield note
        return
    yield message(
        "plan.loss-micro-batch-above-profile",
        "{note}; a process of profile {profile} is said to hold {holds}",
        note=note,
        profile=run.profile.name,
        holds=holds,
    )


def _epoch_rest_note(recipe: Recipe) -> Iterator[Message]:
    try:
        rows = count_training_rows(open_training_index(recipe.data), recipe.data)
    except KovqaError:  # the index is not here
        return
    batch = recipe.optim.global_batch
    rest = rows % batch
    if rows > batch and rest:
        yield message(
            "plan.epoch-rest",
            "left out of each epoch: {rest:,} of {rows:,} rows ({percent:.2g} %), others each time; they fill no "
            "batch of {batch}",
            batch=batch,
            rest=rest,
            rows=rows,
            percent=100 * rest / rows,
        )


def _unread_columns_notes(recipe: Recipe) -> Iterator[Message]:
    """What the index has and the model is not shown, and rows whose letter cannot be learned."""
    try:
        extras = open_training_index(recipe.data).report.counts.extras
        read = recipe_model_config(recipe).prompt_columns if recipe.task == "vqa" else ()
    except KovqaError:  # the index is not here, or the settings' own check says more
        return
    contexts, choices = extras.contexts.get("train", 0), extras.choices.get("train", 0)
    family = message("plan.family", "family {family}", family=recipe.family)
    if unread := describe_unread_columns(family, read, contexts, choices):
        yield unread
    if choices and "context" in read and "choices" not in read:
        yield message(
            "plan.choices-not-listed", "to list them and learn the answer's letter: --set model.choices=true"
        )
    if "choices" not in read:
        return
    if not choices:
        yield message("plan.no-choices", "model.choices is true, but no training row has choices")
    if foreign := extras.answer_no_choice.get("train", 0):
        yield message(
            "plan.answer-no-choice",
            "not learned: {rows:,} training rows whose answer is none of their choices",
            rows=foreign,
        )


def require_learnable_choices(run: Run) -> None:
    """See that not too many training rows have an answer that is none of their choices: no letter says it.

    Raises:
        DataError: by the rule of `data/left_out.py`, which the training would apply after its first steps.
    """
    counts = open_training_index(run.recipe.data).report.counts
    rows, foreign = counts.rows.get("train", 0), counts.extras.answer_no_choice.get("train", 0)
    # Of some question types alone the report has no count: the training finds out.
    if run.allow_left_out or run.recipe.data.kinds or not are_too_many(foreign, rows):
        return
    if run.recipe.task == "vqa" and "choices" in recipe_model_config(run.recipe).prompt_columns:
        raise too_many_left_out(
            foreign, rows, message("plan.answer-no-choice.reason", "their answer is none of their choices")
        )


def count_training_rows(index: IndexFolder, data: DataSettings) -> int:
    """Rows that training draws from.

    Raises:
        DataError: there is no row of the question types that it asks for.
    """
    if not data.kinds:
        return index.report.counts.rows.get("train", 0)
    return len(filter_question_types(index.split("train"), data.kinds))


def require_whole_batch(folder: Path, rows: int, global_batch: int) -> None:
    """See that an epoch has a batch at all.

    Args:
        folder: of the index.
        rows: training rows.
        global_batch: examples of one optimizer step.

    Raises:
        SettingsError: it has fewer rows.
    """
    if rows >= global_batch:
        return
    raise SettingsError(
        message(
            "train.index-too-small",
            "{folder} has {rows} training rows, fewer than one batch of {batch}",
            folder=folder,
            rows=rows,
            batch=global_batch,
        ),
        message(
            "train.index-too-small.hint", "use --set optim.global_batch={rows} or less", rows=max(1, rows)
        ),
    )


def require_loss_micro_batch(recipe: Recipe, config: FamilyConfig) -> None:
    """See that a loss of whole micro-batches has their size from the recipe.

    Raises:
        SettingsError: the profile would choose the size, and with it the loss.
    """
    setting = config.micro_batch_loss
    if setting is None or recipe.optim.loss_micro_batch is not None:
        return
    raise SettingsError(
        message(
            "plan.no-loss-micro-batch",
            "by {setting} the loss depends on the size of a micro-batch, which the recipe does not state",
            setting=setting,
        ),
        message(
            "plan.no-loss-micro-batch.hint",
            "state it: --set optim.loss_micro_batch={batch} (the whole batch at once, as the original), or less",
            batch=recipe.optim.global_batch,
        ),
    )
