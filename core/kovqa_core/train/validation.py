"""Evaluate a run: answer the validation split on all processes, score the answers, remember the best.

Protocol: the evaluation transform, no example dropped or doubled, all answers together on every process
and then one call of the metric. So a score depends neither on the number of processes nor on the batch size.
Rows that cannot be read are not scored, and are counted by the rule of all (`data/left_out.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kovqa_core.answer.batch_size import evaluation_batch
from kovqa_core.answer.inference import answer_examples
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.left_out import are_too_many, left_out_text, too_many_left_out
from kovqa_core.distributed import process_group
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.evaluate.metrics import Metric, is_better, metric_name
from kovqa_core.messages import Message, message
from kovqa_core.models.precision import make_autocast
from kovqa_core.runs.events import AnswerProgressEvent, EvaluationEvent, WarningEvent
from kovqa_core.runs.validation_samples import (
    SAMPLES_FILE,
    EvaluationSamples,
    append_samples,
    choose_sample_rows,
    make_sample,
)
from kovqa_core.train import checkpoint
from kovqa_core.train.checkpoint import TrainProgress
from kovqa_core.train.run_log import truncate_log
from kovqa_core.train.state import TrainState
from kovqa_core.train.tracked_run import copy_sample_images


def run_validation(state: TrainState) -> None:
    """Score the validation split; remember score and best, in the step's checkpoint too."""
    if len(state.val_examples):
        _score_validation(state)
    else:
        state.progress.best_step = state.progress.step  # nothing to choose by: the newest is the best
    state.progress.evaluation_due = False
    if state.rank.is_main_process:
        state.checkpoints.finish()  # the score goes into its folder
        checkpoint.record_evaluation(state.run.folder, state.progress, state.run.recipe.save.keep)


def _score_validation(state: TrainState) -> None:
    """Answer the validation split on all processes; its score into progress and log."""
    run, split, progress = state.run, state.val_examples, state.progress
    began = time.time()
    own_faults: dict[int, DataError] = {}
    # The score is of the weights that people take away: the averages, where the run keeps any.
    with state.strategy.full_model(state.averages, everywhere=True) as model:
        assert model is not None
        own_answers = list(
            answer_examples(
                model, state.processor, split, state.index.images, state.rank, state.device,
                evaluation_batch(run), run.profile.loader_workers,
                lambda: make_autocast(run.profile.precision, state.device),
                lambda answered: state.log.report_progress(
                    AnswerProgressEvent(
                            answered.done,
                            answered.total or len(split),
                            message("answer.evaluation", "evaluation"),
                        )
                ),
                own_faults.__setitem__,
            )
        )  # fmt: skip
    left_out = _check_faults(state, own_faults)
    state.checkpoints.poll()
    answers = _gather_answers(own_answers)
    progress.score = score_split(answers, split, state.metric)
    if is_better(state.metric, progress.score, progress.best):
        progress.best, progress.best_step = progress.score, progress.step
    assert progress.best is not None
    _record_samples(state, answers)
    state.log.log_record(
        EvaluationEvent(
            progress.step,
            run.recipe.task,
            progress.score,
            progress.best,
            rows=len(split) - left_out,
            seconds=time.time() - began,
            metric=metric_name(run.recipe.eval.metric, run.recipe.task),
            left_out=left_out or None,
        )
    )


def _check_faults(state: TrainState, own_faults: dict[int, DataError]) -> int:
    """How many rows of the split cannot be read, on all processes; said, with the first of them.

    Raises:
        DataError: too many, or all; on all processes alike.
    """
    faults: dict[int, DataError] = {}
    for of_rank in process_group.all_gather_objects(own_faults):
        faults |= of_rank
    if not faults:
        return 0
    rows, first = len(state.val_examples), faults[min(faults)].message
    reasons = message(
        "train.validation-faults", "of the validation split, which are not scored ({first})", first=first
    )
    if len(faults) == rows or (not state.run.allow_left_out and are_too_many(len(faults), rows)):
        raise too_many_left_out(len(faults), rows, reasons)
    text = left_out_text(len(faults), rows, reasons)
    state.log.emit_event(WarningEvent(message("train.left-out-warning", "warning: {text}", text=text)))
    return len(faults)


def _gather_answers(answers: list[tuple[int, Answer]]) -> list[tuple[int, Answer]]:
    """Numbers of the split's examples and their answers, of all processes, on every process."""
    # In the order of the split: sums of floats are the same to the last bit on any number of processes.
    return sorted(
        (pair for of_rank in process_group.all_gather_objects(answers) for pair in of_rank),
        key=lambda pair: pair[0],
    )


def score_split(answers: Sequence[tuple[int, Answer]], split: Sequence[Example], metric: Metric) -> float:
    """The metric of all answers.

    Args:
        answers: (number of the example in the split, its answer), in the order of the split.
        split: the examples, at least one.
        metric: of the recipe.
    """
    return metric.score([split[number] for number, _ in answers], [answer.text for _, answer in answers])


def _record_samples(state: TrainState, answers: Sequence[tuple[int, Answer]]) -> None:
    """Keep what was answered to a few examples, for `kovqa runs page`; that this fails is said, and ends no run."""
    if not state.rank.is_main_process:
        return
    split, metric, given = state.val_examples, state.metric, dict(answers)
    samples = []
    for number in choose_sample_rows(len(split)):
        if number in given:  # it can be read
            example, text = split[number], given[number].text
            points = metric.score([example], [text]) if metric.task == "vqa" else None
            samples.append(make_sample(example, text, points))
    try:
        append_samples(state.run.folder, EvaluationSamples(state.progress.step, samples))
        copy_sample_images(state.run, state.index.images, samples)
    except (KovqaError, OSError) as error:
        state.log.emit_event(WarningEvent(_samples_warning(error)))


def truncate_samples(folder: Path, progress: TrainProgress) -> list[Message]:
    """Cut the file of samples to the step that a run goes on from, as its log; what people should know if it fails."""
    try:
        truncate_log(folder / SAMPLES_FILE, progress.step, evaluation_due=progress.evaluation_due)
    except (KovqaError, OSError) as error:
        return [_samples_warning(error)]
    return []


def _samples_warning(error: KovqaError | OSError) -> Message:
    return message("train.samples-not-kept", "validation samples are not kept: {problem}", problem=error)


def should_stop_early(state: TrainState) -> bool:
    """Did `eval.patience` evaluations go by without a better score?

    Computed from the progress alone, without a counter of its own: so it says the same on every process
    and after a resume, also when the last evaluation was interrupted. A change of the recipe on the way gets
    the patience of a new best score.
    """
    patience, progress = state.run.recipe.eval.patience, state.progress
    if patience is None or progress.best is None or progress.best_step is None:
        return False
    last_evaluated = progress.step - progress.step % state.eval_every
    hopeful_since = max([progress.best_step, *(change.step for change in state.run.changes)])
    return last_evaluated - hopeful_since >= patience * state.eval_every
