"""What a step computed, as all processes know it alike: sent to the host after the step, read one step later.

The device works on the next step meanwhile, and the host waits for it once a step, here. Nothing is spoiled
before it is known: a step whose loss or gradient is not finite changes nothing (`TrainStrategy.step`), and
before a checkpoint, an evaluation or the end everything is read.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from kovqa_core.distributed import process_group
from kovqa_core.errors import DataError, WorkerError
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.models.read_later import read_later
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.runs.step_folders import list_step_folders
from kovqa_core.train.pending_step import PendingStep, StepBatches
from kovqa_core.train.state import TrainState
from kovqa_core.train.strategies.base import LossScaler, StepOutcome

_MAX_NAMED_EXAMPLES = 8  # ids in a message


@dataclass(frozen=True)
class StepReport:
    """What all processes know alike of a step.

    Attributes:
        step: from 0.
        loss: mean over the global batch.
        norm: of the gradient, before clipping; not finite where the step was skipped.
        loss_scaler: after it.
        stopping: was any process asked to stop?
        save_due: did the first process's clock ask for a checkpoint?
        left_out: examples that could not be learned from, on all processes.
        faults: what is wrong with those of them that cannot be read.
        read_at: when it was known, by `time.monotonic`.
    """

    step: int
    loss: float
    norm: float
    loss_scaler: LossScaler
    stopping: bool
    save_due: bool
    left_out: int
    faults: list[str]
    read_at: float


@dataclass(frozen=True)
class StepSums:
    """Sums over all processes of one step, on the device.

    Attributes:
        values: loss · share, share, asked to stop, save due, examples left out, faults; [6].
        loss: mean over the global batch, a scalar.
        gradient_scale: that makes the summed gradients those of this mean.
    """

    values: Tensor
    loss: Tensor
    gradient_scale: Tensor


def sum_step(
    state: TrainState, micro_batches: StepBatches, *, stop_requested: bool, save_due: bool
) -> StepSums:
    """Agree on a step before it is made: what one process decided alone, the others would wait for, for ever.

    One all-reduce of six numbers, which nobody waits for here: signals arrive at processes at different steps.
    """
    wide = torch.float32 if state.device.type == "mps" else torch.float64  # Metal has no float64
    means, shares = (torch.stack(values).to(wide) for values in zip(*micro_batches.losses, strict=True))
    counts = len(micro_batches.left_out), len(micro_batches.faults)
    own = torch.tensor(
        [stop_requested, save_due, *counts], dtype=wide, pin_memory=state.device.type == "cuda"
    )
    sums = torch.stack([(means * shares).sum(), shares.sum()])
    values = process_group.all_reduce_sum(torch.cat([sums, own.to(state.device, non_blocking=True)]))
    share = torch.where(values[1] == 0, 1.0, values[1])  # nothing counts: loss and gradients are 0
    micro_batch_count = state.run.accumulate * state.rank.world_size
    return StepSums(values, values[0] / share, micro_batch_count / share)


def send_report(
    state: TrainState,
    step: int,
    micro_batches: StepBatches,
    sums: StepSums,
    outcome: StepOutcome,
    scale: Tensor,
) -> PendingStep:
    """Send what is known of a step to the host, in one transfer.

    Args:
        state: after the step.
        step: from 0.
        micro_batches: what went into it on this process.
        sums: of `sum_step`.
        outcome: of the optimizer.
        scale: the loss scale with which the step was made.
    """
    after = (state.strategy.loss_scale, state.strategy.good_steps)
    scalars = torch.stack([value.to(sums.values.dtype) for value in (*outcome, scale, *after)])
    # On a CPU the host cannot go ahead of the device: what it has made is known.
    known_at = None if state.device.type == "cuda" else time.monotonic()
    return PendingStep(step, micro_batches, read_later(torch.cat([sums.values, scalars])), known_at)


def read_report(state: TrainState, pending: PendingStep) -> StepReport:
    """Wait for what a step computed. Collective: all processes must come here.

    Raises:
        WorkerError: loss or gradient is not finite; names the step, and the examples of its batch.
        DataError: no example of the step could be learned from.
    """
    values, read_at = pending.read_numbers()
    total, share, stopping, saving, left_out, fault_count, norm, skipped, scale_before, scale, good = values
    step, micro_batches = pending.step, pending.micro_batches
    loss = total / (share or 1.0)
    if not math.isfinite(loss):
        raise _loss_not_finite(state, micro_batches, step)
    # Of a small batch all images may be unreadable by chance: that is judged over many steps (`TrainMeter`).
    if left_out == state.run.recipe.optim.global_batch and fault_count < left_out:
        raise _no_usable_example(micro_batches, step)
    if skipped and scale_before <= 1:
        # Not the scale's fault: without one (or at its lowest) the next step would end the same way.
        raise WorkerError(
            message("train.gradient-not-finite", "the gradient is not finite at step {step}", step=step + 1),
            _not_finite_hint(state, step),
        )
    # What one process could not read, all must know: each judges alike. Rare, so not in every step.
    by_rank = process_group.all_gather_objects(micro_batches.faults) if fault_count else []
    faults = [fault for of_rank in by_rank for fault in of_rank]
    scaler = LossScaler(state.strategy.loss_scaler.dynamic, scale, int(good))
    return StepReport(step, loss, norm, scaler, stopping > 0, saving > 0, int(left_out), faults, read_at)


def _no_usable_example(micro_batches: StepBatches, step: int) -> DataError:
    return DataError(
        message(
            "train.no-usable-example",
            "no example of step {step} can be learned from: without answer, or longer than model.max_text "
            "({ids}, …)",
            step=step + 1,
            ids=", ".join(micro_batches.left_out[:_MAX_NAMED_EXAMPLES]),
        ),
        message("train.no-usable-example.hint", "raise model.max_text, or lower model.max_pixels"),
    )


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
