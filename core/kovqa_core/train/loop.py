"""The one loop. It knows no model by name, and nothing of the machine but what the run says."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kovqa_core.answer.inference import answer_examples
from kovqa_core.data.example import Example
from kovqa_core.distributed import process_group, watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError, SettingsError, Stopped, WorkerError
from kovqa_core.files import write_json
from kovqa_core.index.reader import IndexFolder, filter_question_types, open_index
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor, ModelBatch, iterate_batches
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.runs.folder import RESULT_FILE, follow_pointer
from kovqa_core.settings.run import Run
from kovqa_core.train import checkpoint, memory_probe, optim
from kovqa_core.train.loader import micro_batch_keys
from kovqa_core.train.run_log import RunLog
from kovqa_core.train.strategies.ddp import LocalShards, TrainStrategy, make_autocast, make_strategy
from kovqa_core.train.validation import score_split


@dataclass
class TrainState:
    """Everything that moves while a run trains."""

    run: Run
    rank: RankInfo
    device: torch.device
    index: IndexFolder
    rows: Sequence[Example]  # trained on
    val: Sequence[Example]
    processor: ExampleProcessor
    stepper: TrainStrategy
    averages: LocalShards | None  # of the weights (EMA)
    length: optim.TrainingSteps
    state: checkpoint.TrainProgress
    log: RunLog
    stop: Callable[[], bool]
    saved_at: float = 0.0

    @property
    def eval_every(self) -> int:
        """Optimizer steps between evaluations."""
        setting = self.run.recipe.eval
        return setting.every_steps or setting.every_epochs * self.length.per_epoch


def run_training(run: Run, rank: RankInfo, device: torch.device, stop: Callable[[], bool]) -> None:
    """Train a run to its end, from its last checkpoint if it has one.

    Args:
        run: what to do.
        rank: place of this process.
        device: where the model lives.
        stop: True once this process was asked to stop.

    Raises:
        Stopped: asked to stop; a complete checkpoint was written.
        WorkerError: loss or gradient is not finite; names step and examples.
    """
    t = prepare_training(run, rank, device, stop)
    if run.probe:
        t.run = t.stepper.run = run = memory_probe.probe_micro_batch(t)
    if t.state.evaluation_due:  # the run ended between a save and its evaluation
        run_validation(t)
    began, start = time.time(), t.state.step
    keys = micro_batch_keys(run, len(t.rows), rank, t.state.step, t.length.total)
    loader = iterate_batches(
        keys, t.rows, t.index.images, t.processor, train=True, seed=run.recipe.seed,
        workers=run.profile.loader_workers, pin=device.type == "cuda",
    )  # fmt: skip
    meter = TrainMeter(t)
    for step in range(t.state.step, t.length.total):
        if should_stop_early(t):
            break
        rate = optim.learning_rate(step, run.recipe.optim, t.length)
        optim.set_learning_rate(t.stepper.optimizer, rate, step < run.recipe.optim.freeze_vision_steps)
        losses, ids, left_out = accumulate_gradients(t, loader, step)
        loss, stopping, due, lost = sync_step(t, losses, ids, left_out, step)
        norm = t.stepper.step()
        finite = math.isfinite(norm)
        if not finite and t.stepper.scale.value <= 1:
            raise WorkerError(
                f"the gradient is not finite at step {step + 1}", "lower optim.lr or set optim.max_grad_norm"
            )
        t.stepper.scale.follow(finite)
        if t.averages is not None and finite:
            checkpoint.update_ema(t.averages, t.stepper.pieces(), run.recipe.optim.ema_decay)
        t.state.step = step + 1
        meter.step(loss, norm, lost)
        finish_step(t, stopping, due)
    if rank.first:
        write_result(t, time.time() - began, t.state.step - start)
    t.log.close()


def prepare_training(run: Run, rank: RankInfo, device: torch.device, stop: Callable[[], bool]) -> TrainState:
    """Index, model, optimizer and log of a run, where its last checkpoint left them."""
    watchdog.set_phase("preparing")
    recipe = run.recipe
    images = Path(recipe.data.images) if recipe.data.images else None
    index = open_index(Path(recipe.data.index or ""), images)
    rows, val = (filter_question_types(index.split(name), recipe.data.kinds) for name in ("train", "val"))
    length = optim.count_training_steps(recipe.optim, len(rows))
    if not length.per_epoch:
        raise SettingsError(
            f"{index.folder} has {len(rows)} training rows, fewer than one batch of {recipe.optim.global_batch}",
            f"use --set optim.global_batch={max(1, len(rows))} or less",
        )
    last = follow_pointer(run.folder, "last")
    if last:
        trust = bool(recipe.model.get("trust_remote_code"))  # said by the user, not by the step folder
        options = family.LoadOptions(recipe.data, trust)
        model, processor = family.read_model_folder(last, recipe.task, options)
        note = f"resumed from {last.name}"
    else:
        model, processor, note = family.create_model(recipe, index.answers() if recipe.task == "vqa" else [])
    model.train().prepare(
        activation_checkpointing=run.profile.activation_checkpointing, compile=run.profile.compile
    )
    before = (
        checkpoint.read_resume_state(last, model, recipe.optim.ema_decay > 0)
        if last
        else checkpoint.ResumeState()
    )
    stepper = make_strategy(model, run, rank, device)
    averages, state = checkpoint.restore_strategy(stepper, before), before.state
    log = RunLog(run.folder, state.step, rank.first, without_evaluation=state.evaluation_due)
    log.tell({"kind": "start", "step": state.step, "total": length.total, "note": note})
    return TrainState(
        run, rank, device, index, rows, val, processor, stepper, averages, length, state, log, stop,
        time.monotonic(),
    )  # fmt: skip


def accumulate_gradients(
    t: TrainState, loader: Iterator[ModelBatch], step: int
) -> tuple[list[Tensor], list[list[str]], list[str]]:
    """Gradients of one optimizer step; losses and ids of its micro-batches, ids of what was left out."""
    losses, ids, left_out = [], [], []
    for turn in range(t.run.accumulate):
        watchdog.set_phase("reading a batch", step + 1)
        batch = next(loader).to(t.device)
        watchdog.set_phase("computing")
        torch.manual_seed(dropout_seed(t.run.recipe.seed, step, batch.ids))
        losses.append(t.stepper.backward(batch, step, last=turn + 1 == t.run.accumulate))
        ids.append(batch.ids)
        left_out += batch.left_out
    return losses, ids, left_out


def dropout_seed(seed: int, step: int, ids: list[str]) -> int:
    """Seed of what a model draws itself (dropout): of the step and its examples, not of the process."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {ids}".encode()).digest()[:8], "little") >> 1


def sync_step(
    t: TrainState, losses: list[Tensor], ids: list[list[str]], left_out: list[str], step: int
) -> tuple[float, bool, bool, int]:
    """What all processes must know alike: (mean loss, is somebody asked to stop, is a save due, examples left out).

    Raises:
        WorkerError: a loss is not finite; names the examples of its batch.
        DataError: no example of the step could be learned from.
    """
    due = t.rank.first and time.monotonic() - t.saved_at > 60 * t.run.recipe.save.every_minutes
    mean = torch.stack(losses).double().mean() / t.rank.world
    flags = torch.tensor([float(t.stop()), float(due), len(left_out)], dtype=torch.float64, device=t.device)
    loss, stopping, saving, lost = process_group.all_reduce_sum(torch.cat([mean[None], flags])).tolist()
    if loss - loss != 0:  # inf or nan
        bad = [i for one, names in zip(losses, ids, strict=True) if not torch.isfinite(one) for i in names]
        named = [i for share in process_group.all_gather_objects(bad) for i in share]
        shown = ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
        raise WorkerError(
            f"the loss is not finite at step {step + 1}; examples of that batch: {shown}",
            "look at them, lower optim.lr, or set optim.max_grad_norm",
        )
    if lost == t.run.recipe.optim.global_batch:
        raise DataError(
            f"no example of step {step + 1} can be learned from: without answer, or longer than model.max_text "
            f"({', '.join(left_out[:8])}, …)",
            "raise model.max_text, or lower model.max_pixels",
        )
    return loss, stopping > 0, saving > 0, int(lost)


def finish_step(t: TrainState, stopping: bool, due: bool) -> None:
    """Save and evaluate where the recipe, the clock or a stop asks for it.

    Saved first: whatever happens to an evaluation, nothing learned is lost.
    """
    step, total = t.state.step, t.length.total
    every = t.run.recipe.save.every_steps
    t.state.evaluation_due = step % t.eval_every == 0 or step == total
    if t.state.evaluation_due or due or stopping or (every and step % every == 0):
        save_checkpoint(t)
    if t.state.evaluation_due:
        run_validation(t)
    if stopping and step < total:
        raise Stopped(f"stopped at step {step} of {total}; the checkpoint is complete", "go on with --resume")


def run_validation(t: TrainState) -> None:
    """Score the validation split; remember score and best, in the step's checkpoint too."""
    if len(t.val):
        score_validation(t)
    else:
        t.state.best_step = t.state.step
    t.state.evaluation_due = False
    if t.rank.first:
        checkpoint.record_evaluation(t.run.folder, t.state, t.run.recipe.save.keep)


def score_validation(t: TrainState) -> None:
    """Answer the validation split on all processes; its score into state and log."""
    split = t.val
    began = time.time()
    with t.stepper.plain(t.averages, everywhere=True) as model:
        answers = list(
            answer_examples(
                model, t.processor, split, t.index.images, t.rank, t.device, t.run.micro_batch,
                t.run.profile.loader_workers, lambda: make_autocast(t.run.profile, t.device),
                lambda done, of: t.log.progress(doing="evaluation", done=done, of=of),
            )
        )  # fmt: skip
        t.state.score = score_split(answers, split, t.run.recipe.task)
    if t.state.best is None or t.state.score > t.state.best:
        t.state.best, t.state.best_step = t.state.score, t.state.step
    t.log.record(
        "eval",
        t.state.step,
        task=t.run.recipe.task,
        score=t.state.score,
        best=t.state.best,
        rows=len(split),
        seconds=time.time() - began,
    )


def should_stop_early(t: TrainState) -> bool:
    """Did the recipe's number of evaluations go by without a better score? Known from the state alone."""
    patience = t.run.recipe.eval.patience
    if patience is None or t.state.best is None or t.state.best_step is None:
        return False
    evaluated = t.state.step - t.state.step % t.eval_every
    return evaluated - t.state.best_step >= patience * t.eval_every


def save_checkpoint(t: TrainState) -> None:
    """Write a checkpoint."""
    t.saved_at = time.monotonic()
    watchdog.set_phase("saving")
    recipe = t.run.recipe
    info = CheckpointInfo(recipe.family, recipe.task, recipe.name)
    path = checkpoint.write_checkpoint(
        t.run.folder, t.stepper, t.processor, t.averages, t.state, info, recipe.save.keep
    )
    t.log.tell({"kind": "saved", "step": t.state.step, "path": str(path)})


def write_result(t: TrainState, seconds: float, steps: int) -> None:
    """Say that the run is finished, and how well."""
    best = follow_pointer(t.run.folder, "best")
    result = {
        "schema": 1, "task": t.run.recipe.task, "recipe": t.run.recipe.name, "steps": t.state.step,
        "best": best.name if best else None, "best_score": t.state.best, "last_score": t.state.score,
        "seconds": round(seconds, 1),
        "examples_per_second": round(steps * t.run.recipe.optim.global_batch / max(seconds, 1e-9), 1),
    }  # fmt: skip
    write_json(t.run.folder / RESULT_FILE, result)
    t.log.tell({"kind": "end", "step": t.state.step, **result})


class TrainMeter:
    """Loss, norm and rate between lines of the log; the time left."""

    def __init__(self, t: TrainState) -> None:
        self.t, self.began, self.first = t, time.monotonic(), t.state.step
        self.losses: list[float] = []
        self.lost = 0
        self.at = self.began

    def step(self, loss: float, norm: float, lost: int) -> None:
        """Count one optimizer step, and the examples left out of it; log every `log_every`."""
        t, now = self.t, time.monotonic()
        self.losses.append(loss)
        self.lost += lost
        batch = t.run.recipe.optim.global_batch
        done = t.state.step - self.first
        left = (now - self.began) / done * (t.length.total - t.state.step)
        t.log.progress(
            step=t.state.step,
            total=t.length.total,
            loss=loss,
            rate=done * batch / (now - self.began),
            left=left,
        )
        if t.state.step % t.run.recipe.log_every == 0 or t.state.step == t.length.total:
            t.log.record(
                "train", t.state.step, loss=sum(self.losses) / len(self.losses),
                grad_norm=norm if math.isfinite(norm) else None,  # None: left out, and the loss scale halved
                lr=optim.learning_rate(t.state.step - 1, t.run.recipe.optim, t.length),
                examples_per_second=len(self.losses) * batch / max(now - self.at, 1e-9),
                **({"left_out": self.lost} if self.lost else {}),
                **({"loss_scale": t.stepper.scale.value} if t.stepper.scale.dynamic else {}),
            )  # fmt: skip
            self.losses, self.lost, self.at = [], 0, now
