"""The training loop. It knows no model by name, and nothing of the machine but what the run says."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from kovqa_core.distributed import process_group, watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError, Stopped, WorkerError
from kovqa_core.evaluate.metrics import metric_name, require_metric
from kovqa_core.index.reader import filter_question_types, open_training_index
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.models.compiled_layers import choose_compile, watch_compiling
from kovqa_core.plan.batch_notes import require_whole_batch
from kovqa_core.runs.events import EndEvent, StartEvent, WarningEvent
from kovqa_core.runs.folder import RunResult, follow_pointer, write_result
from kovqa_core.runs.step_folders import list_step_folders
from kovqa_core.settings.code_consent import code_consent_of, set_code_consent
from kovqa_core.settings.run import Run, optim_at_step
from kovqa_core.train import checkpoint, memory_probe, optim
from kovqa_core.train.accumulate import StepBatches, accumulate_gradients, batch_norm_note
from kovqa_core.train.checkpoint_writer import CheckpointWriter
from kovqa_core.train.loader import micro_batch_keys
from kovqa_core.train.meter import TrainMeter
from kovqa_core.train.resume import agree_on_resume_point, settle_run_folder
from kovqa_core.train.run_log import RunLog
from kovqa_core.train.state import TrainState
from kovqa_core.train.strategies.choose import make_strategy
from kovqa_core.train.validation import run_validation, should_stop_early

_MAX_NAMED_EXAMPLES = 8  # ids in a message


def run_training(run: Run, rank: RankInfo, device: torch.device, stop_requested: Callable[[], bool]) -> None:
    """Train a run to its end, from its last checkpoint if it has one.

    Args:
        run: what to do.
        rank: place of this process.
        device: where the model lives.
        stop_requested: True once this process was asked to stop.

    Raises:
        Stopped: asked to stop; a complete checkpoint was written.
        WorkerError: loss or gradient is not finite; names step and examples.
    """
    state = prepare_training(run, rank, device, stop_requested)
    with state.checkpoints:  # whatever ends the run, the checkpoint on its way is whole
        _train_to_end(state)
    state.log.close()


def _train_to_end(state: TrainState) -> None:
    run, rank = state.run, state.rank
    if run.probe:
        state.run = state.strategy.run = run = memory_probe.probe_micro_batch(state)
    if note := batch_norm_note(state.strategy.model, run):
        state.log.emit_event(WarningEvent(note))
    if state.progress.evaluation_due:  # the run ended between a save and its evaluation
        run_validation(state)
    began, first_step = time.time(), state.progress.step
    batches = _train_batches(state)
    meter = TrainMeter(state, began=time.monotonic(), first_step=first_step)
    for step in range(first_step, state.steps.total):
        if should_stop_early(state):
            break
        train_step(state, batches, step, meter)
        if state.compile_times is not None and (made := state.compile_times.note()):
            state.log.emit_event(WarningEvent(made))
    if rank.is_main_process:
        state.checkpoints.finish()
        finish_run(state, time.time() - began, state.progress.step - first_step)


def _train_batches(state: TrainState) -> Iterator[ModelBatch]:
    run = state.run
    keys = micro_batch_keys(run, len(state.examples), state.rank, state.progress.step, state.steps.total)
    return iterate_batches(
        keys, state.examples, state.index.images, state.processor, train=True, seed=run.recipe.seed,
        workers=run.profile.loader_workers, pin=state.device.type == "cuda", keep_faults=True,
    )  # fmt: skip


def train_step(state: TrainState, batches: Iterator[ModelBatch], step: int, meter: TrainMeter) -> None:
    """One optimizer step, from 0, and what is due after it."""
    settings, strategy = state.run.recipe.optim, state.strategy
    rate = optim.run_learning_rate(state.run, step, len(state.examples))
    optim.set_learning_rate(strategy.optimizer, rate, text_only=step < settings.freeze_vision_steps)
    if state.run.changes:  # a rerun meets them one by one
        strategy.set_max_grad_norm(optim_at_step(state.run, step).max_grad_norm)
    synced = sync_step(state, accumulate_gradients(state, batches, step), step)
    norm = strategy.step(synced.gradient_scale)
    finite = math.isfinite(norm)
    if not finite and strategy.loss_scaler.value <= 1:
        # Not the scale's fault: without one (or at its lowest) the next step would end the same way.
        raise WorkerError(
            message("train.gradient-not-finite", "the gradient is not finite at step {step}", step=step + 1),
            _not_finite_hint(state, step),
        )
    strategy.loss_scaler.update(finite=finite)
    if state.averages is not None and finite:  # a skipped step changed no weight: it must not age the average
        checkpoint.update_ema(state.averages, strategy.local_shards(), settings.ema_decay)
    state.progress.step = step + 1
    meter.count_step(synced.loss, norm, synced.left_out, synced.faults)
    finish_step(state, stopping=synced.stopping, save_due=synced.save_due)


def prepare_training(
    run: Run, rank: RankInfo, device: torch.device, stop_requested: Callable[[], bool]
) -> TrainState:
    """Index, model, optimizer and log of a run, where its last checkpoint left them.

    Raises:
        SettingsError: the index is smaller than one batch; an unknown metric.
        ModelError: the checkpoint is broken.
    """
    watchdog.set_phase("preparing")
    recipe = run.recipe
    metric = require_metric(recipe.eval.metric, recipe.task)
    # The index first: what is wrong with it is known before any weights are read.
    index = open_training_index(recipe.data)
    examples, val_examples = (
        filter_question_types(index.split(name), recipe.data.kinds) for name in ("train", "val")
    )
    require_whole_batch(index.folder, len(examples), recipe.optim.global_batch)
    steps = optim.count_training_steps(recipe.optim, len(examples))
    point = agree_on_resume_point(run.folder, rank)
    last = point.step
    resumed = checkpoint.ResumeState()
    trust_code = code_consent_of(os.environ)  # from the command, never from run.yaml or the step folder
    if last:
        options = family.LoadOptions(recipe.data, trust_remote_code=trust_code)
        model, processor = family.read_model_folder(last, recipe.task, options)
        note: str = message("train.resumed-from", "resumed from {step}", step=last.name)
    else:
        typed_recipe = set_code_consent(recipe, trust_code=trust_code)
        model, processor, note = family.create_model(
            typed_recipe, index.answers() if recipe.task == "vqa" else []
        )
    compile, not_compiled = choose_compile(run.profile.compile, device, run.profile.strategy)
    model.train().prepare(activation_checkpointing=run.profile.checkpoints_activations, compile=compile)
    # A compilation may take a minute: it is work, no hang.
    compile_times = watch_compiling(watchdog.note_progress) if compile else None
    if last:
        resumed = checkpoint.read_resume_state(last, model, keeps_averages=recipe.optim.ema_decay > 0)
    model.suit_device(device, run.profile.precision)
    strategy = make_strategy(model, run, rank, device)
    averages, progress = checkpoint.restore_strategy(strategy, resumed), resumed.progress
    # Nothing that a run has learned or logged is touched before all processes have their checkpoint.
    process_group.all_gather_objects(None)
    notes = settle_run_folder(run.folder, point) if rank.is_main_process else []
    log = RunLog(
        run.folder,
        progress.step,
        is_main_process=rank.is_main_process,
        evaluation_due=progress.evaluation_due,
    )
    log.emit_event(StartEvent(progress.step, steps.total, note))
    if not_compiled is not None:
        log.emit_event(WarningEvent(not_compiled))
    for note_of_folder in notes:
        log.emit_event(WarningEvent(message("train.folder-warning", "warning: {text}", text=note_of_folder)))
    for warning in family.text_warnings(recipe.family, processor, examples) if rank.is_main_process else ():
        log.emit_event(WarningEvent(warning))
    return TrainState(
        run, rank, device, index, examples, val_examples, processor, strategy, averages, steps, progress,
        metric, log, CheckpointWriter(run, strategy, processor, log.emit_event), stop_requested,
        saved_at=time.monotonic(), compile_times=compile_times,
    )  # fmt: skip


@dataclass(frozen=True)
class SyncedStep:
    """What all processes know alike of a step.

    Attributes:
        loss: mean over the global batch.
        gradient_scale: that makes the summed gradients those of this mean.
        stopping: was any process asked to stop?
        save_due: does the first process's clock ask for a checkpoint?
        left_out: examples that could not be learned from, on all processes.
        faults: what is wrong with those of them that cannot be read.
    """

    loss: float
    gradient_scale: float
    stopping: bool
    save_due: bool
    left_out: int
    faults: list[str]


def sync_step(state: TrainState, micro_batches: StepBatches, step: int) -> SyncedStep:
    """Agree on a step before it is made: what one process decided alone, the others would wait for, for ever.

    One all-reduce of six numbers: signals arrive at processes at different steps, clocks differ.

    Raises:
        WorkerError: a loss is not finite; names the examples of its batch.
        DataError: no example of the step could be learned from.
    """
    minutes = state.run.recipe.save.every_minutes
    # One clock decides: those of other hosts may be minutes apart.
    save_due = state.rank.is_main_process and time.monotonic() - state.saved_at > 60 * minutes
    means, shares = (torch.stack(values).double() for values in zip(*micro_batches.losses, strict=True))
    flags = torch.tensor(
        [
            float(state.stop_requested()),
            float(save_due),
            len(micro_batches.left_out),
            len(micro_batches.faults),
        ],
        dtype=torch.float64,
        device=state.device,
    )
    sums = torch.stack([(means * shares).sum(), shares.sum()])
    total, share, stopping, saving, left_out, fault_count = process_group.all_reduce_sum(
        torch.cat([sums, flags])
    ).tolist()
    share = share or 1.0  # nothing counts: loss and gradients are 0
    loss = total / share
    if not math.isfinite(loss):
        raise _loss_not_finite(state, micro_batches, step)
    # Of a small batch all images may be unreadable by chance: that is judged over many steps (`TrainMeter`).
    if left_out == state.run.recipe.optim.global_batch and fault_count < left_out:
        raise DataError(
            message(
                "train.no-usable-example",
                "no example of step {step} can be learned from: without answer, or longer than model.max_text "
                "({ids}, …)",
                step=step + 1,
                ids=", ".join(micro_batches.left_out[:_MAX_NAMED_EXAMPLES]),
            ),
            message("train.no-usable-example.hint", "raise model.max_text, or lower model.max_pixels"),
        )
    # What one process could not read, all must know: each judges alike. Rare, so not in every step.
    by_rank = process_group.all_gather_objects(micro_batches.faults) if fault_count else []
    faults = [fault for of_rank in by_rank for fault in of_rank]
    micro_batch_count = state.run.accumulate * state.rank.world_size
    return SyncedStep(loss, micro_batch_count / share, stopping > 0, saving > 0, int(left_out), faults)


def _loss_not_finite(state: TrainState, micro_batches: StepBatches, step: int) -> WorkerError:
    """Collective: every process sees the same loss and comes here, and names the examples of its own part."""
    # The sum over processes does not say whose loss it was: each looks at its own.
    own = [
        id
        for loss, ids in zip(micro_batches.losses, micro_batches.ids, strict=True)
        if not torch.isfinite(loss.mean)
        for id in ids
    ]
    ids = [id for of_rank in process_group.all_gather_objects(own) for id in of_rank]
    named = ", ".join(ids[:_MAX_NAMED_EXAMPLES])
    hidden = len(ids) - _MAX_NAMED_EXAMPLES
    if hidden > 0:
        named = message("train.and-more", "{names} and {hidden} more", names=named, hidden=hidden)
    return WorkerError(
        message(
            "train.loss-not-finite",
            "the loss is not finite at step {step}; examples of that batch: {ids}",
            step=step + 1,
            ids=named,
        ),
        _not_finite_hint(state, step),
    )


def _not_finite_hint(state: TrainState, step: int) -> Message:
    """What can be done: to a run that has a checkpoint, to one whose checkpoint is spoiled too, to a new one.

    Collective: every process comes here.
    """
    state.checkpoints.finish()
    process_group.all_gather_objects(None)  # all see what the first process was still writing
    run, last = state.run, follow_pointer(state.run.folder, "last")
    lower = run.recipe.optim.lr / 10
    if last is None:
        return message(
            "train.not-finite.hint",
            "begin again, lower optim.lr (--set optim.lr={lr:.3g}) or clip gradients (--set optim.max_grad_norm=1)",
            lr=lower,
        )
    resume = message(
        "train.resume-lower.hint",
        "lower optim.lr: kovqa train --resume -o {folder} --change optim.lr={lr:.3g} "
        "(or clip gradients: --change optim.max_grad_norm=1)",
        folder=shell_quote(run.folder),
        lr=lower,
    )
    if last.name == f"step-{step:06d}":  # the very weights that gave this loss
        gone = [last]
        if len(list_step_folders(run.folder)) == 1:  # a pointer to the only one would be a lost checkpoint
            gone.append(run.folder / "last")
        return message(
            "train.spoiled-checkpoint.hint",
            "the weights of {step} are spoiled already, go back behind them: rm -r {path}; then {resume}",
            step=last.name,
            path=" ".join(map(shell_quote, gone)),
            resume=resume,
        )
    return message(
        "train.not-finite-after-checkpoint.hint", "go on from {step}, {resume}", step=last.name, resume=resume
    )


def finish_step(state: TrainState, *, stopping: bool, save_due: bool) -> None:
    """Save and evaluate where the recipe, the clock or a stop asks for it.

    Saved first: whatever happens to an evaluation, nothing learned is lost.

    Raises:
        Stopped: a stop was asked for, and this is not the last step.
        MachineError: this checkpoint, or the one before it, could not be written.
    """
    state.checkpoints.poll()
    step, total = state.progress.step, state.steps.total
    save_every = state.run.recipe.save.every_steps
    state.progress.evaluation_due = step % state.eval_every == 0 or step == total
    if state.progress.evaluation_due or save_due or stopping or (save_every and step % save_every == 0):
        save_checkpoint(state)
    if state.progress.evaluation_due:
        run_validation(state)
    if stopping and step < total:
        state.checkpoints.finish()
        raise Stopped(
            message(
                "train.stopped-at-step",
                "stopped at step {step} of {total}; the checkpoint is complete",
                step=step,
                total=total,
            ),
            message("train.stopped-at-step.hint", "continue with --resume"),
        )


def save_checkpoint(state: TrainState) -> None:
    """Copy a checkpoint, to be written while training goes on. Collective: all processes must come here."""
    state.saved_at = time.monotonic()
    state.checkpoints.save(state.averages, state.progress)


def finish_run(state: TrainState, seconds: float, steps: int) -> None:
    """Mark the run as finished, with its score.

    Args:
        state: after the last step.
        seconds: of this launch.
        steps: that this launch did.
    """
    recipe, progress = state.run.recipe, state.progress
    best = follow_pointer(state.run.folder, "best")
    result = RunResult(
        task=recipe.task,
        recipe=recipe.name,
        steps=progress.step,
        best=best.name if best else None,
        best_score=progress.best,
        last_score=progress.score,
        seconds=round(seconds, 1),
        examples_per_second=round(steps * recipe.optim.global_batch / max(seconds, 1e-9), 1),
        metric=metric_name(recipe.eval.metric, recipe.task),
    )
    write_result(state.run.folder, result)
    state.log.emit_event(EndEvent(progress.step, result.best_score, result.last_score, result.seconds))
