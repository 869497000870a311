"""What a plan says of a run's batches: rows of an epoch that fill none, and means that the recipe fixes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.index.reader import filter_question_types, open_index
from kovqa_core.messages import Message, message
from kovqa_core.models.config import FamilyConfig
from kovqa_core.settings.recipe import DataSettings, Recipe
from kovqa_core.settings.run import Run


def batch_notes(run: Run) -> list[Message]:
    """Lines about the batches of a run, for people who read its plan."""
    return [*_loss_micro_batch_note(run), *_epoch_rest_note(run.recipe)]


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
    rows, batch = _count_training_rows(recipe.data), recipe.optim.global_batch
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


def _count_training_rows(data: DataSettings) -> int:
    """Rows that training draws from; 0 where the index is not here."""
    try:
        index = open_index(Path(data.index or ""), Path(data.images) if data.images else None)
        if not data.kinds:
            return index.report.counts.rows.get("train", 0)
        return len(filter_question_types(index.split("train"), data.kinds))
    except KovqaError:
        return 0


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
