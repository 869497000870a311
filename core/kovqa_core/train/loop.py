"""The training loop. It knows no model by name, and nothing of the machine but what the run says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import torch

from kovqa_core.distributed import process_group, watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import Stopped
from kovqa_core.evaluate.metrics import metric_name, require_metric
from kovqa_core.index.reader import filter_question_types, open_training_index
from kovqa_core.messages import message
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.models.compiled_layers import choose_compile, watch_compiling
from kovqa_core.models.text_warnings import text_warnings
from kovqa_core.plan.batch_notes import require_whole_batch
from kovqa_core.runs.events import EndEvent, StartEvent, WarningEvent
from kovqa_core.runs.folder import RunResult, follow_pointer, write_result
from kovqa_core.settings.code_consent import code_consent_of, set_code_consent
from kovqa_core.settings.run import Run, optim_at_step
from kovqa_core.train import checkpoint, memory_probe, optim
from kovqa_core.train.accumulate import accumulate_gradients, batch_norm_note
from kovqa_core.train.checkpoint_writer import CheckpointWriter
from kovqa_core.train.deterministic import deterministic_errors, use_deterministic_kernels
from kovqa_core.train.frozen_features import use_frozen_features
from kovqa_core.train.loader import micro_batch_keys
from kovqa_core.train.memory_errors import training_memory_errors
from kovqa_core.train.meter import TrainMeter
from kovqa_core.train.pending_step import PendingStep
from kovqa_core.train.resume import agree_on_resume_point, settle_run_folder
from kovqa_core.train.run_log import RunLog
from kovqa_core.train.state import TrainState
from kovqa_core.train.step_report import StepReport, read_report, send_report, sum_step
from kovqa_core.train.strategies.choose import make_strategy
from kovqa_core.train.validation import run_validation, should_stop_early, truncate_samples


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
    # Whatever ends the run, the checkpoint on its way is whole.
    with training_memory_errors(state), deterministic_errors(), state.log, state.checkpoints:
        _train_to_end(state)


def _train_to_end(state: TrainState) -> None:
    run, rank = state.run, state.rank
    if run.probe:
        state.run = state.strategy.run = run = memory_probe.probe_micro_batch(state)
    if note := batch_norm_note(state.strategy.model, run):
        state.log.emit_event(WarningEvent(note))
    if state.progress.evaluation_due:  # the run ended between a save and its evaluation
        run_validation(state)
    use_frozen_features(state)
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
    """One optimizer step, from 0, and what is due after it; then what the step before it computed is read."""
    settings, strategy = state.run.recipe.optim, state.strategy
    rate = optim.run_learning_rate(state.run, step, len(state.examples))
    optim.set_learning_rate(strategy.optimizer, rate, text_only=step < settings.freeze_vision_steps)
    if state.run.changes:  # a rerun meets them one by one
        strategy.set_max_grad_norm(optim_at_step(state.run, step).max_grad_norm)
    micro_batches = accumulate_gradients(state, batches, step)
    # One clock decides: those of other hosts may be minutes apart.
    waited = time.monotonic() - state.saved_at
    save_due = state.rank.is_main_process and waited > 60 * state.run.recipe.save.every_minutes
    stopping = state.stop_requested()
    sums = sum_step(state, micro_batches, stop_requested=stopping, save_due=save_due)
    scale = strategy.loss_scale
    outcome = strategy.step(sums.gradient_scale, sums.loss)
    if state.averages is not None:
        optim.update_ema(state.averages, strategy.local_shards(), settings.ema_decay, outcome.skipped)
    earlier, state.pending = state.pending, send_report(state, step, micro_batches, sums, outcome, scale)
    state.progress.step = step + 1
    if earlier is not None:
        report = settle_report(state, meter, earlier)
    if state.rank.world_size > 1:  # a process alone needs no agreement, and stops at once
        stopping, save_due = (report.stopping, report.save_due) if earlier is not None else (False, False)
    finish_step(state, meter, stopping=stopping, save_due=save_due)


def settle_report(state: TrainState, meter: TrainMeter, pending: PendingStep) -> StepReport:
    """Wait for what a step computed, and log it; see `read_report`."""
    report = read_report(state, pending)
    state.strategy.loss_scaler = report.loss_scaler
    meter.count_step(report)
    return report


def prepare_training(
    run: Run, rank: RankInfo, device: torch.device, stop_requested: Callable[[], bool]
) -> TrainState:
    """Index, model, optimizer and log of a run, where its last checkpoint left them.

    Raises:
        SettingsError: the index is smaller than one batch; an unknown metric.
        ModelError: the checkpoint is broken.
    """
    watchdog.set_phase("preparing")
    if run.profile.deterministic:
        use_deterministic_kernels()
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
    if rank.is_main_process:
        notes += truncate_samples(run.folder, progress)
    log = RunLog(
        run,
        progress.step,
        is_main_process=rank.is_main_process,
        evaluation_due=progress.evaluation_due,
    )
    log.emit_event(StartEvent(progress.step, steps.total, note))
    if not_compiled is not None:
        log.emit_event(WarningEvent(not_compiled))
    for note_of_folder in notes:
        log.emit_event(WarningEvent(message("train.folder-warning", "warning: {text}", text=note_of_folder)))
    for warning in text_warnings(recipe.family, processor, examples) if rank.is_main_process else ():
        log.emit_event(WarningEvent(warning))
    return TrainState(
        run, rank, device, index, examples, val_examples, processor, strategy, averages, steps, progress,
        metric, log, CheckpointWriter(run, strategy, processor, log.emit_event), stop_requested,
        saved_at=time.monotonic(), compile_times=compile_times,
    )  # fmt: skip


def finish_step(state: TrainState, meter: TrainMeter, *, stopping: bool, save_due: bool) -> None:
    """Save and evaluate where the recipe, the clock or a stop asks for it, once all is known of the step.

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
        if state.pending is not None:
            pending, state.pending = state.pending, None
            report = settle_report(state, meter, pending)
            stopping = stopping or report.stopping
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
